"""The report's tables as plain columns and cells: all results, the tokenizers, where everything came from."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.report.series import Member, Series
from experiments.report.study import Point, Row, Study, number
from experiments.report.text import ABSENT, bits, clean, count, duration, interval, perplexity, protocol, ratio
from experiments.report.training import tokens_of


@dataclass(frozen=True)
class Cell:
    """What is read (`text`), what is sorted by and written as CSV (`value`), and a longer word for the curious."""

    text: str
    value: Any = None
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """Columns (name, whether its cells are numbers) and rows of as many cells."""

    columns: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[Cell, ...], ...]


RESULT_COLUMNS = (
    ("series", False), ("length", True), ("context", False), ("protocol", False), ("stride", True),
    ("bits per byte", True), ("95 % interval", True), ("perplexity", True), ("nats per token", True),
    ("tokens scored", True), ("bytes scored", True), ("parameters", True), ("train tokens", True),
    ("train time", True), ("seed", True), ("status", False),
)  # fmt: skip
CONTEXT_COLUMN = 2


def results_table(series: Sequence[Series]) -> Table:
    """Every row of every evaluation, and one row for every point without any.

    Where windows of equal bytes were measured too, a column tells what every row's windows were chosen to hold.
    """
    rows = []
    for one in series:
        for member in one.members:
            if member.evaluation is None:
                rows.append(_result(one, member, None))
            else:
                rows += [_result(one, member, row) for row in member.evaluation.all_rows or (None,)]
    if any(evaluation.equal_bytes for one in series for evaluation in one.evaluations):
        return Table(RESULT_COLUMNS, tuple(rows))
    columns = RESULT_COLUMNS[:CONTEXT_COLUMN] + RESULT_COLUMNS[CONTEXT_COLUMN + 1 :]
    return Table(columns, tuple(row[:CONTEXT_COLUMN] + row[CONTEXT_COLUMN + 1 :] for row in rows))


def _result(one: Series, member: Member, row: Row | None) -> tuple[Cell, ...]:
    point, evaluation = member.point, member.evaluation
    parameters = evaluation.parameters if evaluation else None
    if parameters is None:
        parameters = point.run.provenance.get("parameters")
    seed = evaluation.seed if evaluation and evaluation.seed is not None else point.seed

    def cell(value: Any, write: Callable[[Any], str]) -> Cell:
        value = number(value)
        return Cell(write(value), value)

    if row is None:
        evaluated: tuple[Cell, ...] = (Cell(ABSENT),) * 10
        status = Cell(point.status if point.status != "finished" else "not evaluated", hint=point.error or "")
    else:
        ok = row.status == "ok"
        evaluated = (
            cell(row.length, count),
            Cell(_context(row, count), _context(row, str)),
            Cell(protocol(row.protocol), row.protocol),
            cell(row.stride, count),
            cell(row.bits_per_byte if ok else None, bits),
            Cell(interval(row.low, row.high) if ok else ABSENT, row.low if ok else None),
            cell(row.perplexity if ok else None, perplexity),
            cell(row.nats_per_token if ok else None, bits),
            cell(row.tokens, count),
            cell(row.bytes, count),
        )
        status = Cell(row.shown_status, hint=row.reason or "")
    status = Cell(status.text + (f": {status.hint}" if status.hint else ""), status.text)
    return (
        Cell(one.label, one.label),
        *evaluated,
        cell(parameters, count),
        cell(train_tokens(point), count),
        cell(point.run.seconds, duration),
        Cell(ABSENT if seed is None else clean(seed), seed),
        status,
    )


def _context(row: Row, write: Callable[[int], str]) -> str:
    """ "128 tokens", or "256 bytes (96 tokens)" where the bytes were chosen and the tokens follow from them."""
    tokens = f"{write(row.length)} tokens"
    return tokens if row.context_bytes is None else f"{write(row.context_bytes)} bytes ({tokens})"


def results_csv(series: Sequence[Series]) -> tuple[tuple[str, ...], tuple[tuple, ...]]:
    """Header and rows of the whole table at full precision, the interval as two columns, with the run and its step.

    `context_bytes` is empty except where the length was chosen to hold so many bytes of text.
    """
    header = (
        "series", "run_id", "step", "seed", "length", "context_bytes", "protocol", "stride", "status", "reason",
        "bits_per_byte", "low", "high", "perplexity", "nats_per_token", "tokens", "bytes", "seconds", "parameters",
        "train_tokens", "train_seconds",
    )  # fmt: skip
    rows: list[tuple] = []
    for one in series:
        for point, evaluation in ((member.point, member.evaluation) for member in one.members):
            cost = (train_tokens(point), point.run.seconds)
            parameters = evaluation.parameters if evaluation else number(point.run.provenance.get("parameters"))
            if evaluation is None or not evaluation.all_rows:
                known = (one.label, point.run.run_id, None, point.seed, *(None,) * 4, point.status, point.error)
                rows.append((*known, *(None,) * 8, parameters, *cost))
                continue
            run = (one.label, evaluation.run_id, evaluation.step, evaluation.seed)
            for row in evaluation.all_rows:
                scores = (row.bits_per_byte, row.low, row.high, row.perplexity, row.nats_per_token)
                measured = (row.tokens, row.bytes, row.seconds, parameters)
                place = (row.length, row.context_bytes, row.protocol, row.stride, row.status, row.reason)
                rows.append((*run, *place, *scores, *measured, *cost))
    return header, tuple(rows)


def train_tokens(point: Point) -> float | None:
    """Tokens the run was trained on: the last that its metrics tell of."""
    seen = [tokens for line in point.run.metrics if (tokens := tokens_of(line, point.run)) is not None]
    return max(seen, default=None)


def tokenizer_table(study: Study) -> Table:
    """One row per distinct tokenizer: its size, what a token covers, and whether text survives the round trip."""
    columns = (
        ("tokenizer", False), ("vocabulary", True), ("bytes per token", True), ("tokens per word", True),
        ("round trip", False), ("used by", False),
    )  # fmt: skip
    grouped: dict[str, list[Point]] = {}
    for point in study.points:
        if _report(point):
            grouped.setdefault(str(point.run.provenance.get("tokenizer_hash")) + _name(point), []).append(point)
    rows = []
    for points in grouped.values():
        report = _report(points[0])
        used = list(dict.fromkeys(point.label for point in points))
        exact = {True: "exact", False: "not exact"}.get(report.get("lossless"), ABSENT)  # type: ignore[arg-type]
        statement = clean(report.get("statement") or "")
        everyone = len(grouped) == 1
        rows.append(
            (
                Cell(_name(points[0])),
                Cell(count(number(report.get("vocabulary_size")))),
                Cell(ratio(number(report.get("bytes_per_token")))),
                Cell(ratio(number(report.get("tokens_per_word")))),
                Cell(
                    statement
                    if statement.lower().startswith(exact)
                    else f"{exact}: {statement}"
                    if statement
                    else exact
                ),
                Cell("every run" if everyone else ", ".join(used)),
            )
        )
    return Table(columns, tuple(rows))


def _report(point: Point) -> Mapping[str, Any]:
    report = point.run.provenance.get("tokenizer_report")
    return report if isinstance(report, Mapping) else {}


def _name(point: Point) -> str:
    tokenizer = point.run.config.get("tokenizer")
    return clean(tokenizer.get("name", ABSENT)) if isinstance(tokenizer, Mapping) else ABSENT


PROVENANCE = (
    ("commit", "commit"), ("device_kind", "device"), ("device_count", "devices"), ("platform", "platform"),
    ("date", "date"), ("data_hash", "data hash"), ("held_out_hash", "held-out text hash"),
    ("tokenizer_hash", "tokenizer hash"), ("versions", "versions"),
)  # fmt: skip


def provenance_tables(study: Study) -> tuple[Table, Table]:
    """What all runs share, and per point its run, overrides, and whatever differs between runs."""
    told = [point for point in study.points if point.run.provenance]
    corpora = {point.run.run_id: _corpus(point) for point in told}

    def value(point: Point, key: str) -> str:
        if key == "corpus":
            return corpora.get(point.run.run_id, ABSENT)
        return _told(point.run.provenance, key)

    entries = (("corpus", "corpus"), *PROVENANCE)
    shared = [(key, name) for key, name in entries if len({value(point, key) for point in told}) == 1 and told]
    differing = [(key, name) for key, name in entries if (key, name) not in shared and told]
    common = Table(
        (("of every run", False), ("", False)),
        tuple((Cell(name), Cell(value(told[0], key))) for key, name in shared),
    )
    columns = ("point", "run", "status", "seed", "overrides", *(name for _, name in differing))
    rows = tuple(
        (
            Cell(point.label),
            Cell(point.run.run_id or ABSENT),
            Cell(point.status),
            Cell(plain(point.seed)),
            Cell(plain(point.overrides)),
            *(Cell(value(point, key)) for key, _ in differing),
        )
        for point in study.points
    )
    return common, Table(tuple((name, False) for name in columns), rows)


def _told(provenance: Mapping[str, Any], key: str) -> str:
    """A fact of a run; of one that was resumed, what the processes said in turn, where they differ; its last date."""
    earlier = provenance.get("earlier")
    starts = [start for start in earlier if isinstance(start, Mapping)] if isinstance(earlier, list) else []
    told = [plain(start[key]) for start in starts if key in start and key != "date"]
    return ", then ".join(dict.fromkeys([*told, plain(provenance.get(key))]))


def _corpus(point: Point) -> str:
    data = point.run.config.get("data")
    corpus = data.get("corpus") if isinstance(data, Mapping) else None
    return clean(corpus.get("name", ABSENT)) if isinstance(corpus, Mapping) else ABSENT


def plain(value: Any) -> str:
    """A value of a configuration as text: `name = value` pairs for a mapping, JSON for lists."""
    if value is None or value == {} or value == "":
        return ABSENT
    if isinstance(value, Mapping):
        return ", ".join(f"{clean(key)} = {plain(entry)}" for key, entry in value.items())
    if isinstance(value, (list, bool)):
        return clean(json.dumps(value, ensure_ascii=False))
    return clean(value)

"""Reads a study folder (study.json, runs/, their evaluations) into frozen records; nothing is dropped silently.

What one run's files lack or hold damaged becomes a line in `Study.problems`, which the page shows; only a folder that
is no study at all is refused.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from experiments.report.text import clean
from experiments.study import MANIFEST, progress, read_manifest
from models.errors import InvalidInput
from train.config import WATCHING

# A loss beyond this is a model that has lost all sense; it is told like an infinite one, so that it needs no axis.
HUGE = 1e9
STATUSES = ("finished", "failed", "missing", "interrupted", "running")


@dataclass(frozen=True)
class Row:
    """One scored length under one protocol; bits per byte, with a 95 % bootstrap interval over documents.

    `context_bytes`: the bytes of text for which `length` was chosen, None where the length itself was asked for.
    """

    length: int
    protocol: str
    stride: int | None
    status: str
    reason: str | None
    nats_per_token: float | None
    perplexity: float | None
    bits_per_byte: float | None
    low: float | None
    high: float | None
    tokens: int | None
    bytes: int | None
    seconds: float | None
    context_bytes: int | None

    @property
    def usable(self) -> bool:
        """Whether the row holds a finite number of bits per byte."""
        return self.status == "ok" and self.bits_per_byte is not None and sane(self.bits_per_byte)

    @property
    def failed(self) -> bool:
        """Whether measuring failed, or gave what is no number: the loss was not finite, or the memory too small."""
        return self.status == "failed" or (self.status == "ok" and math.isnan(self.bits_per_byte or 0.0))

    @property
    def shown_status(self) -> str:
        """The status, except that an "ok" without a finite number says so."""
        if self.status != "ok" or self.usable:
            return self.status
        return "no number" if self.bits_per_byte is None else "not finite"


@dataclass(frozen=True)
class Bucket:
    """Mean loss of the tokens at positions start … stop − 1 of the window."""

    start: int
    stop: int
    bits_per_byte: float | None
    nats_per_token: float | None
    tokens: int | None


@dataclass(frozen=True)
class ContextPoint:
    """Loss on the same final tokens in a window of `context` tokens; the interval is of bits per byte."""

    context: int
    nats_per_token: float | None
    bits_per_byte: float | None
    low: float | None
    high: float | None
    tokens: int | None


@dataclass(frozen=True)
class Ablation:
    """A row of an attribution: bits per byte under one change, and their difference from the model as it is."""

    name: str
    row: Row
    difference: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Attribution:
    """What breaks at `length` tokens, by ablations and in sentences. It refers to the training length `trained`."""

    length: int
    trained: int | None
    ablations: tuple[Ablation, ...]
    verdict: tuple[str, ...]


@dataclass(frozen=True)
class EntropyCurve:
    """Entropy of attention in windows of `length` tokens: for each layer, buckets (start, stop, nats)."""

    length: int
    windows: int | None
    reason: str | None
    layers: tuple[tuple[tuple[int, int, float | None], ...], ...]


@dataclass(frozen=True)
class Evaluation:
    """One checkpoint evaluated under one override (empty: as it was trained, at the study's settings).

    `text` identifies the documents scored and how much of each; None where the file does not say.
    """

    series: str
    run_id: str
    step: int | None
    seed: int | None
    train_length: int | None
    override: Mapping[str, Any]
    parameters: int | None
    documents: int | None
    text: str | None
    rows: tuple[Row, ...]
    equal_bytes: tuple[Row, ...]
    position_length: int | None
    buckets: tuple[Bucket, ...]
    final_tokens: int | None
    contexts: tuple[ContextPoint, ...]
    attributions: tuple[Attribution, ...]
    entropies: tuple[EntropyCurve, ...]

    @property
    def all_rows(self) -> tuple[Row, ...]:
        """The rows by length, then those at equal bytes."""
        return (*self.rows, *self.equal_bytes)


@dataclass(frozen=True)
class Run:
    """One run folder: its resolved configuration, what it logged, where it came from, its evaluations.

    `seconds`: how long training took, known once it is finished.
    """

    run_id: str
    config: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    provenance: Mapping[str, Any]
    evaluations: tuple[Evaluation, ...]
    seconds: float | None = None


@dataclass(frozen=True)
class Point:
    """One point of the sweep. `run` is empty where its folder is missing."""

    label: str
    run: Run
    overrides: Mapping[str, Any]
    status: str
    error: str | None
    train_length: int | None = None

    @property
    def seed(self) -> Any:
        return self.run.config.get("seed")


@dataclass(frozen=True)
class Study:
    """Everything the report shows, in the order of the sweep."""

    name: str
    title: str
    description: str
    created: str
    swept: tuple[str, ...]
    points: tuple[Point, ...]
    problems: tuple[str, ...] = field(default=())

    @property
    def train_lengths(self) -> list[int]:
        """The lengths that its points train at, ascending."""
        return sorted({point.train_length for point in self.points if point.train_length})


def read_study(folder: Path) -> Study:
    """Reads the study in `folder`. Raises InvalidInput where it holds no readable study.json."""
    if not (folder / MANIFEST).is_file():
        raise InvalidInput(f"{folder} is not a study folder: it must hold a file {MANIFEST}")
    content = read_manifest(folder)
    problems: list[str] = []
    points = [_point(folder, index, entry, problems) for index, entry in enumerate(content["points"])]
    name = clean(content.get("name") or folder.name)
    return Study(
        name=name,
        title=clean(content.get("title") or name),
        description=clean(content.get("description") or ""),
        created=clean(content.get("created") or ""),
        swept=tuple(clean(entry) for entry in _list(content.get("swept"))),
        points=_distinct(points, problems),
        problems=tuple(problems),
    )


def _point(folder: Path, index: int, entry: Mapping[str, Any], problems: list[str]) -> Point:
    """A point as its run's folder shows it, which may be further than study.json says, written between runs."""
    run_id = clean(entry.get("run_id") or "")
    label = clean(entry.get("label") or run_id or f"point {index + 1}")
    status = entry.get("status")
    if status not in STATUSES:
        raise InvalidInput(
            f"{folder / MANIFEST}: points[{index}].status = {status!r} is not allowed; it must be one of "
            + ", ".join(STATUSES)
        )
    error = entry.get("error")
    run_folder = folder / "runs" / run_id
    if run_id and run_folder.is_dir():
        run = _run(run_folder, run_id, problems)
        status, error = progress(run_folder)
    else:
        run = Run(run_id, {}, (), {}, ())
        if status == "finished":
            problems.append(f"{label}: finished, but its folder runs/{run_id} is missing")
    overrides, trained = _mapping(entry.get("overrides")), _integer(entry.get("train_length"))
    return Point(label, run, overrides, status, clean(error) if error else None, trained)


def _distinct(points: list[Point], problems: list[str]) -> tuple[Point, ...]:
    """One point per run. Points of one label that differ in their seed alone are repetitions and stay under it.

    Others of one label get a run's id in theirs: points of another configuration that of the first such run, points
    of one configuration and one seed (which began from different runs) each its own.
    """
    distinct: list[Point] = []
    for point in points:
        if point.run.run_id and any(point.run.run_id == other.run.run_id for other in distinct):
            problems.append(f"{point.label}: the same run {point.run.run_id} as an earlier point, shown once")
        else:
            distinct.append(point)
    known = [(point, _but_for_seed(point.run.config)) for point in distinct if point.run.config]
    named = []
    for point in distinct:
        of_label = [(other, config) for other, config in known if other.label == point.label]
        own = next((config for other, config in of_label if other is point), None)
        alike = [other for other, config in of_label if config == own]
        if own is not None and sum(other.seed == point.seed for other in alike) > 1:
            point = replace(point, label=f"{point.label} ({point.run.run_id[:8]})")
        elif own is not None and len(alike) < len(of_label):
            point = replace(point, label=f"{point.label} ({alike[0].run.run_id[:8]})")
        named.append(point)
    return tuple(named)


def _but_for_seed(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What decides a run's numbers, without its seed and the run that it began from, which has a seed of its own."""
    kept = {name: value for name, value in config.items() if name not in ("seed", "initial", "checkpoint")}
    train = {name: value for name, value in _mapping(config.get("train")).items() if name not in WATCHING}
    return kept | {"train": train}


def _run(folder: Path, run_id: str, problems: list[str]) -> Run:
    def optional(name: str) -> Mapping[str, Any]:
        path = folder / name
        return _mapping(_json(path, problems)) if path.is_file() else {}

    evaluations = []
    for path in sorted((folder / "evaluation").glob("*.json")):
        content = _json(path, problems)
        if isinstance(content, dict):
            evaluations.append(_evaluation(content, run_id, path.stem))
        elif content is not None:
            problems.append(f"runs/{run_id}/evaluation/{path.name}: not an evaluation, left out")
    metrics = _metrics(folder / "metrics.jsonl", problems)
    return Run(
        run_id=run_id,
        config=optional("config.json"),
        metrics=metrics,
        provenance=optional("provenance.json"),
        evaluations=tuple(evaluations),
        seconds=number(optional("finished.json").get("seconds")),
    )


def _json(path: Path, problems: list[str]) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"runs/{'/'.join(path.parts[path.parts.index('runs') + 1 :])}: unreadable ({clean(error)})")
        return None


def _metrics(path: Path, problems: list[str]) -> tuple[Mapping[str, Any], ...]:
    """The lines of metrics.jsonl; a line torn by an interruption is counted and left out."""
    if not path.is_file():
        return ()
    lines, torn = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line) if line.strip() else {}
        except ValueError:
            entry = None
        if isinstance(entry, dict):
            lines.append(entry)
        else:
            torn += 1
    if torn:
        problems.append(f"runs/{path.parent.name}/metrics.jsonl: {torn} unreadable line(s) left out")
    return tuple(line for line in lines if line)


def _evaluation(content: Mapping[str, Any], run_id: str, stem: str) -> Evaluation:
    by_position, context_gain = _mapping(content.get("by_position")), _mapping(content.get("context_gain"))
    equal_bytes = [_row(row) for row in _mappings(content.get("equal_bytes"))]
    attribution, entropy = _mapping(content.get("attribution")), _mapping(content.get("entropy"))
    return Evaluation(
        series=clean(content.get("series") or stem),
        run_id=run_id,
        step=_integer(content.get("step")),
        seed=_integer(content.get("seed")),
        train_length=_integer(content.get("train_length")),
        override=_mapping(content.get("override")),
        parameters=_integer(content.get("parameters")),
        documents=_integer(content.get("documents")),
        text=clean(content.get("text") or "") or None,
        rows=tuple(_row(row) for row in _mappings(content.get("rows")) if _integer(row.get("length"))),
        equal_bytes=tuple(row for row in equal_bytes if row.length and row.context_bytes),
        position_length=_integer(by_position.get("length")),
        buckets=tuple(_bucket(bucket) for bucket in _mappings(by_position.get("buckets"))),
        final_tokens=_integer(context_gain.get("final_tokens")),
        contexts=tuple(_context(point) for point in _mappings(context_gain.get("points"))),
        attributions=tuple(
            _attribution(entry, _integer(attribution.get("trained")))
            for entry in _mappings(attribution.get("lengths"))
            if _integer(entry.get("length"))
        ),
        entropies=tuple(_entropy(curve) for curve in _mappings(entropy.get("curves")) if _integer(curve.get("length"))),
    )


def _row(content: Mapping[str, Any]) -> Row:
    reason = content.get("reason")
    return Row(
        length=_integer(content.get("length")) or 0,
        protocol=clean(content.get("protocol") or "non_overlapping"),
        stride=_integer(content.get("stride")),
        status=clean(content.get("status") or "failed"),
        reason=clean(reason) if reason else None,
        nats_per_token=number(content.get("nats_per_token")),
        perplexity=number(content.get("perplexity")),
        bits_per_byte=number(content.get("bits_per_byte")),
        low=number(content.get("low")),
        high=number(content.get("high")),
        tokens=_integer(content.get("tokens")),
        bytes=_integer(content.get("bytes")),
        seconds=number(content.get("seconds")),
        context_bytes=_integer(content.get("context_bytes")),
    )


def _bucket(content: Mapping[str, Any]) -> Bucket:
    return Bucket(
        start=_integer(content.get("from")) or 0,
        stop=_integer(content.get("to")) or 0,
        bits_per_byte=number(content.get("bits_per_byte")),
        nats_per_token=number(content.get("nats_per_token")),
        tokens=_integer(content.get("tokens")),
    )


def _context(content: Mapping[str, Any]) -> ContextPoint:
    return ContextPoint(
        context=_integer(content.get("context")) or 0,
        nats_per_token=number(content.get("nats_per_token")),
        bits_per_byte=number(content.get("bits_per_byte")),
        low=number(content.get("low")),
        high=number(content.get("high")),
        tokens=_integer(content.get("tokens")),
    )


def _attribution(content: Mapping[str, Any], trained: int | None) -> Attribution:
    ablations = tuple(
        Ablation(
            name=clean(row.get("ablation") or ""),
            row=_row(row),
            difference=number(row.get("difference")),
            low=number(row.get("difference_low")),
            high=number(row.get("difference_high")),
        )
        for row in _mappings(content.get("rows"))
    )
    verdict = tuple(clean(sentence) for sentence in _list(content.get("verdict")))
    return Attribution(_integer(content.get("length")) or 0, trained, ablations, verdict)


def _entropy(content: Mapping[str, Any]) -> EntropyCurve:
    reason = content.get("reason")
    layers = tuple(
        tuple(
            (_integer(bucket.get("from")) or 0, _integer(bucket.get("to")) or 0, number(bucket.get("nats")))
            for bucket in _mappings(layer)
        )
        for layer in _list(content.get("layers"))
    )
    return EntropyCurve(
        length=_integer(content.get("length")) or 0,
        windows=_integer(content.get("windows")),
        reason=clean(reason) if reason else None,
        layers=layers,
    )


def sane(value: float) -> bool:
    """Whether `value` is finite and small enough to compare and draw."""
    return math.isfinite(value) and abs(value) < HUGE


def number(value: Any) -> float | None:
    """`value` where it is a number (NaN and infinity included), else None."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _integer(value: Any) -> int | None:
    value = number(value)
    return int(value) if value is not None and math.isfinite(value) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list:
    return value if isinstance(value, list) else []


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in _list(value) if isinstance(entry, dict)]

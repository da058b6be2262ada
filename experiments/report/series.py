"""Groups a study's evaluations into series: what is drawn as one line, in one colour, in every figure.

A series is a label: a point of the sweep as it was trained, or the same checkpoint under a positional override. Runs
that differ only in their seed share a series, drawn as the mean with a band from the smallest to the largest value.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from experiments.report.study import Evaluation, Point, Row, Study, sane
from experiments.report.text import count, listing, protocol


@dataclass(frozen=True)
class Member:
    """One run's part in a series; `evaluation` is None where the point was never evaluated as trained."""

    point: Point
    evaluation: Evaluation | None


@dataclass(frozen=True)
class Series:
    """One line of the figures. `index` fixes its colour and marker, `trained` is false under a positional override."""

    label: str
    index: int
    trained: bool
    base: str
    members: tuple[Member, ...]

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        return tuple(member.evaluation for member in self.members if member.evaluation is not None)


@dataclass(frozen=True)
class Mark:
    """One point of a curve: the mean over `runs` seeds and its interval (bootstrap of one run, range of several).

    Where `failed` of the seeds failed, y is infinite: a mean of the others would favour what is unstable.
    """

    x: float
    y: float
    low: float | None
    high: float | None
    runs: int
    failed: int = 0


def collect_series(study: Study) -> tuple[Series, ...]:
    """The series in the order of the sweep: the points as trained first, then the overridden ones.

    Every point appears, evaluated or not, so that colours stay where they are while a study fills up.
    """
    trained: dict[str, list[Member]] = {}
    for point in study.points:
        trained.setdefault(point.label, []).append(Member(point, _as_trained(point)))
    others: dict[str, tuple[str, list[Member]]] = {}
    for point in study.points:
        for evaluation in point.run.evaluations:
            if evaluation is not _as_trained(point):
                label = evaluation.series
                if not evaluation.override:
                    label = f"{point.label} · step {evaluation.step}"
                elif not label.startswith(point.label):
                    label = f"{point.label} · {label}"
                label = _free(label, point, trained, others)
                others.setdefault(label, (point.label, []))[1].append(Member(point, evaluation))
    series: list[Series] = []
    for label, members in trained.items():
        series.append(Series(label, len(series), True, label, tuple(members)))
    for label, (base, members) in others.items():
        members += [Member(point, None) for point in study.points if point.label == base and _never_trained(point)]
        series.append(Series(label, len(series), False, base, tuple(members)))
    return tuple(series)


def _never_trained(point: Point) -> bool:
    """Whether training failed before there was anything to evaluate."""
    return point.status == "failed" and not point.run.evaluations


def _as_trained(point: Point) -> Evaluation | None:
    """The newest evaluation of the point's checkpoint without an override."""
    own = [evaluation for evaluation in point.run.evaluations if not evaluation.override]
    return max(own, key=lambda evaluation: evaluation.step or 0, default=None)


def _free(
    label: str, point: Point, trained: Mapping[str, list[Member]], others: Mapping[str, tuple[str, list[Member]]]
) -> str:
    """`label`, numbered where it would merge two different models or two evaluations of one run into one line."""
    candidate, copy = label, 1
    while candidate in trained or (
        candidate in others
        and (others[candidate][0] != point.label or any(member.point is point for member in others[candidate][1]))
    ):
        copy += 1
        candidate = f"{label} ({copy})"
    return candidate


def average(values: Iterable[tuple[float, float | None, float | None, float | None]]) -> list[Mark]:
    """Marks from (x, y, low, high) of several runs, by x; missing or NaN y are left out, insane ones infinite.

    One run keeps its own interval; several runs give the smallest and the largest of their values.
    """
    grouped: dict[float, list[tuple[float, float | None, float | None]]] = {}
    for x, y, low, high in values:
        if y is not None and not math.isnan(y):
            grouped.setdefault(x, []).append((y, low, high))
    marks = []
    for x, entries in sorted(grouped.items()):
        ys = [entry[0] for entry in entries]
        if len(entries) == 1:
            low, high = (bound if bound is not None and sane(bound) else None for bound in entries[0][1:])
        else:
            low, high = min(filter(sane, ys), default=None), max(filter(sane, ys), default=None)
        mean = math.fsum(ys) / len(ys) if all(map(sane, ys)) else math.inf
        marks.append(Mark(x, mean, low, high, len(ys)))
    return marks


def length_curve(series: Series, name: str) -> list[Mark]:
    """Bits per byte against length under the protocol `name`; of several strides at a length, the smallest."""
    return curve(
        series,
        [
            (row.length, row)
            for evaluation in series.evaluations
            for row in smallest_strides(evaluation.rows)
            if row.protocol == name
        ],
    )


def curve(series: Series, rows: Sequence[tuple[float, Row]]) -> list[Mark]:
    """Bits per byte of a series' rows at x; where some of its runs failed there, or in training, the mark says so."""
    never = sum(_never_trained(member.point) for member in series.members)
    marks = []
    for mark in average((x, row.bits_per_byte, row.low, row.high) for x, row in rows if row.status == "ok"):
        failed = never + sum(row.failed for x, row in rows if x == mark.x)
        if failed:
            mark = Mark(mark.x, math.inf, None, None, mark.runs + failed, failed)
        marks.append(mark)
    return marks


def smallest_strides(rows: Sequence[Row]) -> list[Row]:
    """One row per length and protocol: that of the smallest stride, which gives every token the most context."""
    chosen: dict[tuple[int, str], Row] = {}
    for row in rows:
        key = (row.length, row.protocol)
        if key not in chosen or (row.stride or 0) < (chosen[key].stride or 0):
            chosen[key] = row
    return list(chosen.values())


def protocols(series: Sequence[Series]) -> list[str]:
    """The protocols evaluated anywhere, non-overlapping first."""
    names = {row.protocol for one in series for evaluation in one.evaluations for row in evaluation.rows}
    return sorted(names, key=lambda name: (name != "non_overlapping", name != "sliding", name))


def train_lengths(study: Study, series: Sequence[Series]) -> list[int]:
    """The training lengths of the study, ascending; usually one."""
    lengths = {evaluation.train_length for one in series for evaluation in one.evaluations}
    return sorted(length for length in lengths if length) or study.train_lengths


STATES = {
    "failed": "failed",
    "missing": "missing, not run yet",
    "interrupted": "interrupted, not finished",
    "running": "still running",
}
MANY_POINTS = 4


def point_notes(study: Study) -> list[str]:
    """Which points have no evaluation to show, and why: a line each, or one for many in the same state."""
    groups: dict[str, list[Point]] = {}
    for point in study.points:
        if point.status in STATES or not point.run.evaluations:
            state = STATES.get(point.status, "finished, not evaluated") + (f": {point.error}" if point.error else "")
            groups.setdefault(state, []).append(point)
    notes = []
    for state, points in groups.items():
        if len(points) >= MANY_POINTS:
            labels = ", ".join(dict.fromkeys(point.label for point in points))
            notes.append(f"{len(points)} points {state}: {labels}")
            continue
        for point in points:
            seed = f" (seed {point.seed})" if _repeated(study, point) else ""
            notes.append(f"{point.label}{seed}: {state}")
    return notes


def row_notes(series: Sequence[Series]) -> list[str]:
    """One line for every group of lengths without a number, as `learned: undefined beyond 128 (reason)`."""
    notes = []
    for one in series:
        for member in one.members:
            if member.evaluation is None:
                continue
            rows = member.evaluation.rows
            usable = [row.length for row in rows if row.usable]
            groups: dict[tuple[str, str | None], list[Row]] = {}
            for row in rows:
                if not row.usable:
                    # The reason often names the length, so the first one speaks for the group.
                    groups.setdefault((row.shown_status, row.reason if row.status == "failed" else None), []).append(
                        row
                    )
            seed = f" (seed {member.evaluation.seed})" if len(one.members) > 1 else ""
            for (status, _), group in groups.items():
                reason = f" ({group[0].reason})" if group[0].reason else ""
                notes.append(f"{one.label}{seed}: {status} {_where(group, rows, usable)}{reason}")
        notes += _failed_seeds(one)
    return notes


def _failed_seeds(one: Series) -> list[str]:
    """As `rope: 1 of 3 seeds failed at 1,024 and 2,048, …`, where other seeds have numbers there."""
    lengths: dict[tuple[int, int], set[float]] = {}
    for name in protocols([one]):
        for mark in length_curve(one, name):
            if mark.failed:
                lengths.setdefault((mark.failed, mark.runs), set()).add(mark.x)
    notes = []
    for (failed, runs), where in sorted(lengths.items()):
        place = listing([count(length) for length in sorted(where)])
        notes.append(f"{one.label}: {failed} of {runs} seeds failed at {place}, not shown as the others' mean")
    return notes


def survivors_notes(series: Sequence[Series]) -> list[str]:
    """A line for every series of which some seeds failed and others did not, for figures that draw what there is."""
    notes = []
    for one in series:
        failed = sum(
            _never_trained(member.point)
            or (member.evaluation is not None and any(row.failed for row in member.evaluation.rows))
            for member in one.members
        )
        if 0 < failed < len(one.members):
            seeds = f"{failed} of {len(one.members)} seeds failed, in training or at a length"
            notes.append(f"{one.label}: {seeds}; where they have no number, the mean is that of the others")
    return notes


def _where(group: Sequence[Row], rows: Sequence[Row], usable: Sequence[int]) -> str:
    """ "beyond 128", "at every length" or the lengths and the protocol themselves."""
    lengths = sorted({row.length for row in group})
    names = {row.protocol for row in group}
    same = {(row.length, row.protocol) for row in rows if row.length in lengths}
    if same == {(row.length, row.protocol) for row in group}:
        if not usable:
            if len(lengths) == len({row.length for row in rows}):
                return "at every length"
        elif lengths == sorted({row.length for row in rows if row.length > max(usable)}):
            return f"beyond {count(max(usable))}"
    suffix = "" if len(names) > 1 else f" under {protocol(next(iter(names)))} windows"
    return f"at {listing([count(length) for length in lengths])}{suffix}"


def _repeated(study: Study, point: Point) -> bool:
    return sum(other.label == point.label for other in study.points) > 1 and point.seed is not None

"""Vocabularies on an equal footing: windows of as many tokens beside windows of as many bytes of text."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from experiments.report import axes as parts
from experiments.report.axes import LABEL_SIZE, Figure, Limits
from experiments.report.comparison import comparison_notes, rankable
from experiments.report.extrapolation import ROW, reference_lengths
from experiments.report.series import Mark, Series, curve, smallest_strides, train_lengths
from experiments.report.study import Evaluation, Row, Study
from experiments.report.style import GRID, INK, MUTED, WIDTH, canvas, drawing, look, to_svg
from experiments.report.text import ABSENT, bits, count, listing, shorten

TOKENS, BYTES = "tokens", "bytes"
PROTOCOL = "non_overlapping"
COLUMNS = 3
VALUE = 102.0  # points at the right of a panel for a value and what its window comes to


@dataclass(frozen=True)
class Footing:
    """What is held equal: windows of `size` tokens, or of about `size` bytes.

    By series' label: its rows, its mark, and how much of the other unit a window comes to (None where unknown).
    """

    unit: str
    size: float
    rows: Mapping[str, tuple[tuple[Evaluation, Row], ...]]
    marks: Mapping[str, Mark]
    other: Mapping[str, float | None]


def footings(study: Study, series: Sequence[Series]) -> list[Footing]:
    """Equal tokens at the training length (or the shortest measured), then every number of bytes, ascending.

    Empty where no series was measured at equal bytes.
    """
    sizes = {row.context_bytes or 0 for one in series for item in one.evaluations for row in item.equal_bytes}
    if not sizes:
        return []
    found = []
    reference = reference_lengths(study, series)
    if reference is not None:
        rows = {
            one.label: tuple(
                (evaluation, row)
                for evaluation in one.evaluations
                for row in smallest_strides(evaluation.rows)
                if row.length == reference[0] and row.protocol == PROTOCOL
            )
            for one in series
        }
        found.append(_footing(TOKENS, reference[0], rows, series))
    for size in sorted(sizes):
        rows = {
            one.label: tuple(
                (evaluation, row) for evaluation in one.evaluations for row in _of_bytes(evaluation.equal_bytes, size)
            )
            for one in series
        }
        found.append(_footing(BYTES, size, rows, series))
    return [footing for footing in found if footing.unit == BYTES or footing.marks]


def _of_bytes(rows: Iterable[Row], size: int) -> list[Row]:
    """The row of `size` bytes; a size that was asked for twice counts once."""
    return [row for row in rows if row.context_bytes == size][:1]


def _footing(
    unit: str, size: float, rows: dict[str, tuple[tuple[Evaluation, Row], ...]], series: Sequence[Series]
) -> Footing:
    marks, other = {}, {}
    for one in series:
        label, pairs = one.label, rows[one.label]
        measured = [row for _, row in pairs if row.status == "ok"]
        found = curve(one, [(size, row) for _, row in pairs])
        if found:
            marks[label] = found[0]
            amounts = [amount for row in measured if (amount := _other(unit, row)) is not None]
            other[label] = math.fsum(amounts) / len(amounts) if amounts else None
    return Footing(unit, size, rows, marks, other)


def _other(unit: str, row: Row) -> float | None:
    """Tokens in a window of chosen bytes, or bytes in a window of chosen tokens, by what a scored token covers."""
    if unit == BYTES:
        return row.length
    return row.length * row.bytes / row.tokens if row.bytes and row.tokens else None


def byte_notes(series: Sequence[Series]) -> list[str]:
    """One line for every number of bytes without a number, as `learned: undefined in windows of 256 bytes (reason)`."""
    notes = []
    for one in series:
        for evaluation in one.evaluations:
            seed = f" (seed {evaluation.seed})" if len(one.members) > 1 else ""
            for row in evaluation.equal_bytes:
                if not row.usable:
                    reason = f" ({row.reason})" if row.reason else ""
                    place = f"in windows of {count(row.context_bytes)} bytes"
                    notes.append(f"{one.label}{seed}: {row.shown_status} {place}{reason}")
    return notes


def equal_context_figure(study: Study, series: Sequence[Series]) -> Figure:
    """For every series, bits per byte at equal tokens beside those at equal bytes, one panel for each footing."""
    name, title = "bits_per_byte_at_equal_context", "Bits per byte at equal context"
    header = (
        *("series", "seed", "run_id", "equal", "size", "length", "status"),
        *("bits_per_byte", "low", "high", "tokens", "bytes"),
    )
    compared = footings(study, series)
    rows = tuple(
        (
            *(one.label, evaluation.seed, evaluation.run_id, footing.unit, int(footing.size), row.length),
            *(row.shown_status, row.bits_per_byte, row.low, row.high, row.tokens, row.bytes),
        )
        for footing in compared
        for one in series
        for evaluation, row in footing.rows[one.label]
    )
    caption = _caption(study, series, compared)
    absent = [one.label for one in series if one.evaluations and not any(e.equal_bytes for e in one.evaluations)]
    notes = tuple(byte_notes(series)) + ((f"Not measured at equal bytes: {listing(absent)}",) if absent else ())
    notes += tuple(comparison_notes(series))
    if not any(footing.marks for footing in compared):
        return Figure(name, title, caption, notes, None, header, rows, optional=True)
    shown = [one for one in series if one.evaluations]
    with drawing(name):
        svg = to_svg(_draw(study, shown, compared), title, caption + " " + " · ".join(notes))
    return Figure(name, title, caption, notes, svg, header, rows, optional=True)


def _caption(study: Study, series: Sequence[Series], compared: Sequence[Footing]) -> str:
    words = [
        "Non-overlapping windows of equally many tokens beside windows that hold about equally many bytes of text, "
        "whatever the tokenizer; left is better. A larger vocabulary puts more text into a token, so equally many "
        "tokens give it more context; equally many bytes do not. Beside each value, what such a window comes to in "
        "the other unit; the best value of each panel is bold."
    ]
    marks = [mark for footing in compared for mark in footing.marks.values()]
    if any(mark.runs == 1 for mark in marks):
        words.append(
            "Whiskers are 95 % bootstrap intervals of each series alone: all series read the same text, so differences "
            "between them are surer than these suggest."
        )
    if any(mark.runs > 1 for mark in marks):
        words.append("Dots of several seeds are means, their whiskers run from the lowest to the highest seed.")
    trained_at = train_lengths(study, series)
    untrained = [footing for footing in compared if footing.unit == TOKENS and footing.size not in trained_at]
    if untrained:
        words.append(f"{count(untrained[0].size)} tokens are the shortest length evaluated.")
    return " ".join(words)


def _draw(study: Study, shown: Sequence[Series], compared: Sequence[Footing]):
    bands = math.ceil(len(compared) / COLUMNS)
    columns = math.ceil(len(compared) / bands)
    letters = min(max(len(one.label) for one in shown), parts.LABEL_LETTERS)
    left, gap, top, bottom = 34 + letters * LABEL_SIZE * 0.56, 14.0, 40.0, 36.0
    width = (WIDTH - left - (columns - 1) * gap) / columns - VALUE
    height = ROW * len(shown) + 8
    total = bands * (top + height + bottom)
    drawn = canvas(total)
    ranked = {one.label for one in rankable(shown)}
    marks = [mark for footing in compared for mark in footing.marks.values()]
    bounds = [bound for mark in marks for bound in (mark.low, mark.high) if bound is not None]
    limits = parts.robust_limits([mark.y for mark in marks] + bounds, [])
    for index, footing in enumerate(compared):
        band, column = divmod(index, columns)
        x = left + column * (width + VALUE + gap)
        y = total - (band + 1) * (top + height + bottom) + bottom
        axes = drawn.add_axes((x / WIDTH, y / total, width / WIDTH, height / total))
        _panel(axes, footing, train_lengths(study, shown), limits, len(shown))
        values = [mark.y for label, mark in footing.marks.items() if label in ranked]
        best = min(filter(math.isfinite, values), default=None)
        for row, one in enumerate(shown):
            axes.axhline(row, color=GRID, linewidth=0.8, zorder=0)
            if column == 0:
                _name(axes, row, one, left, width)
            _value(axes, row, one, footing, limits, best if one.label in ranked else None, width)
    return drawn


def _panel(axes: Axes, footing: Footing, trained_at: Sequence[int], limits: Limits, rows: int) -> None:
    axes.set_xlim(limits.bottom, limits.top)
    axes.set_ylim(rows - 0.5 + 4 / ROW, -0.5 - 4 / ROW)
    axes.set_yticks([])
    axes.grid(visible=True, axis="x")
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "\u2212"))
    axes.set_xlabel("bits per byte (← better)", fontsize=LABEL_SIZE, labelpad=5)
    trained = " (training length)" if footing.unit == TOKENS and footing.size in trained_at else ""
    kwargs: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    axes.annotate(f"Equal {footing.unit}", (0, 1), (0, 21), fontsize=10.5, fontweight="bold", color=INK, **kwargs)
    text = f"windows of {count(footing.size)} {footing.unit}{trained}"
    axes.annotate(text, (0, 1), (0, 8), fontsize=LABEL_SIZE, color=MUTED, **kwargs)


def _name(axes: Axes, row: int, one: Series, left: float, width: float) -> None:
    style, blend = look(one.index, one.trained), axes.get_yaxis_transform()
    label = shorten(one.label, parts.LABEL_LETTERS)
    axes.text(
        -(left - 24) / width, row, label, transform=blend, va="center_baseline", fontsize=LABEL_SIZE + 0.5, color=INK
    )
    key: dict[str, Any] = {"transform": blend, "clip_on": False, "color": style.colour}
    axes.plot([-(left - 13) / width], [row], marker=style.marker, markerfacecolor=style.face, **key)


def _value(
    axes: Axes, row: int, one: Series, footing: Footing, limits: Limits, best: float | None, width: float
) -> None:
    """One series in one panel: its dot and whiskers, and at the right its value, or why there is none."""
    style, mark = look(one.index, one.trained), footing.marks.get(one.label)
    kwargs: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center_baseline"}
    if mark is None:
        states = dict.fromkeys(entry.shown_status for _, entry in footing.rows[one.label])
        axes.text(1 + 8 / width, row, listing(list(states)) or ABSENT, fontsize=LABEL_SIZE, color=MUTED, **kwargs)
        return
    if mark.low is not None and mark.high is not None:
        ends = [min(mark.low, limits.top), min(mark.high, limits.top)]
        axes.plot(ends, [row, row], color=style.colour, alpha=0.45, linewidth=1.4, zorder=2)
    inside = limits.inside(mark.y)
    axes.plot(
        [mark.y if inside else limits.top],
        [row],
        linestyle="none",
        marker=style.marker if inside else ">",
        markerfacecolor=style.face,
        markeredgecolor=style.colour,
        clip_on=False,
        zorder=5,
    )
    weight = "bold" if mark.y == best else "normal"
    text = f"{mark.failed}/{mark.runs} failed" if mark.failed else bits(mark.y)
    axes.text(1 + 8 / width, row, text, fontsize=LABEL_SIZE + 0.5, fontweight=weight, color=INK, **kwargs)
    other = footing.other[one.label]
    if other is not None and not mark.failed:
        text = f"{count(other)} {BYTES if footing.unit == TOKENS else TOKENS}"
        axes.text(1 + 46 / width, row, text, fontsize=8.5, color=MUTED, **kwargs)

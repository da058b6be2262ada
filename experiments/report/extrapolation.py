"""The two figures of the question itself: bits per byte against length, and what sliding windows take away of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from experiments.report import axes as parts
from experiments.report.axes import LABEL_SIZE, Figure, Label
from experiments.report.comparison import comparison_notes
from experiments.report.series import (
    Mark,
    Series,
    length_curve,
    point_notes,
    protocols,
    row_notes,
    smallest_strides,
    train_lengths,
)
from experiments.report.study import Row, Study
from experiments.report.style import GRID, INK, MUTED, WIDTH, canvas, drawing, look, to_svg
from experiments.report.text import change, count, factor, listing, protocol, shorten

ROW = 21.0


def length_figure(study: Study, series: Sequence[Series]) -> Figure:
    """Bits per byte against length, one panel per protocol over a shared axis."""
    name, title = "bits_per_byte_by_length", "Bits per byte against length"
    names = protocols(series)
    curves = {(one.label, protocol_): length_curve(one, protocol_) for one in series for protocol_ in names}
    marks = [mark for curve in curves.values() for mark in curve]
    header = ("series", "protocol", "length", "stride", "seed", "run_id", "status", "bits_per_byte", "low", "high")
    rows = tuple(
        (
            one.label,
            row.protocol,
            row.length,
            row.stride,
            evaluation.seed,
            evaluation.run_id,
            row.shown_status,
            row.bits_per_byte,
            row.low,
            row.high,
        )
        for one in series
        for evaluation in one.evaluations
        for row in evaluation.rows
    )
    trained_at = train_lengths(study, series)
    caption = _length_caption(series, names, trained_at)
    notes = (*point_notes(study), *row_notes(series), *comparison_notes(series))
    if not marks:
        return Figure(name, title, caption, notes, None, header, rows)
    shortest = min(mark.x for mark in marks)
    anchors = [curve[0].y for curve in curves.values() if curve and curve[0].x <= max([shortest, *trained_at[:1]])]
    bounds = [bound for mark in marks for bound in (mark.low, mark.high) if bound is not None]
    limits = parts.robust_limits([mark.y for mark in marks] + bounds, anchors)
    drawn_names = [protocol_ for protocol_ in names if any(curves[one.label, protocol_] for one in series)]
    shown = {p: [one for one in series if curves[one.label, p]] for p in drawn_names}
    strips = {
        p: [
            (look(one.index, one.trained), mark)
            for one in shown[p]
            for mark in parts.clipped(curves[one.label, p], limits)
        ]
        for p in drawn_names
    }
    lengths = {p: [mark.x for one in shown[p] for mark in curves[one.label, p]] for p in drawn_names}
    labels = {p: [_label(one, curves[one.label, p], max(lengths[p])) for one in shown[p]] for p in drawn_names}
    strip = parts.strip_height(list(strips.values()))
    with drawing(name):
        letters = max(parts.label_letters(labels[p]) for p in drawn_names)
        rows_of_labels = max(len(labels[p]) for p in drawn_names)
        drawn, panels = parts.panels(len(drawn_names), 250, rows_of_labels, letters, strip, True)
        for panel, protocol_ in zip(panels, drawn_names, strict=True):
            parts.length_axis(panel, sorted(set(lengths[protocol_])), "length in tokens")
            parts.value_axis(panel, limits)
            if panel is not panels[0]:
                panel.tick_params(labelleft=False)
            heading = f"{protocol(protocol_).capitalize()} windows"
            parts.heading(panel, heading, "bits per byte, lower is better", strip)
            parts.training_line(panel, trained_at)
            for position, one in enumerate(shown[protocol_]):
                shift = 2 ** (0.2 * (position + 0.5) / len(shown[protocol_]) - 0.1)
                curve = curves[one.label, protocol_]
                parts.draw_marks(panel, curve, look(one.index, one.trained), limits, shift)
            parts.clipped_strip(panel, strips[protocol_])
            parts.end_labels(panel, labels[protocol_], limits)
        svg = to_svg(drawn, title, caption + " " + " · ".join(notes))
    return Figure(name, title, caption, notes, svg, header, rows)


def _label(one: Series, curve: Sequence[Mark], longest: float) -> Label:
    last = curve[-1]
    if last.x < longest:
        return Label(one.label, look(one.index, one.trained), None, f" (to {count(last.x)})")
    return Label(one.label, look(one.index, one.trained), last.y)


def _length_caption(series: Sequence[Series], names: Sequence[str], trained_at: Sequence[int]) -> str:
    evaluations = [evaluation for one in series for evaluation in one.evaluations]
    rows = [row for evaluation in evaluations for row in smallest_strides(evaluation.rows)]
    documents = sorted({evaluation.documents for evaluation in evaluations if evaluation.documents})
    words = []
    if "non_overlapping" in names:
        words.append("Non-overlapping windows restart the context at every window.")
    if "sliding" in names:
        stride = f" (stride: {_strides(rows)})" if any(row.protocol == "sliding" and row.stride for row in rows) else ""
        words.append(
            f"Sliding windows overlap, and after a document's first window each scores only its last tokens{stride}: "
            "none of these starts cold."
        )
    if any(len(one.evaluations) > 1 for one in series):
        words.append("Lines are means over seeds, bands run from the lowest to the highest seed.")
    if any(len(one.evaluations) == 1 for one in series):
        over = f" over {listing([count(n) for n in documents], 'or')} held-out documents" if documents else ""
        words.append(
            f"Whiskers are 95 % bootstrap intervals{over}, of each series alone: all series read the same documents, "
            "so differences between them are surer than these suggest. Marks are moved sideways a little to keep them "
            "apart."
        )
    if trained_at:
        words.append("The dashed line marks the training length.")
    if any(not one.trained for one in series):
        words.append("Hollow marks: a trained model evaluated under changed positions, without retraining.")
    words.append("Values beyond the axis are arrows with their number.")
    return " ".join(words)


def _strides(rows: Sequence[Row]) -> str:
    """ "25 % of the length", or the strides themselves where their share of the length changes."""
    sliding = [row for row in rows if row.protocol == "sliding" and row.stride]
    shares = {round(100 * (row.stride or 0) / row.length, 1) for row in sliding}
    if len(shares) == 1 and len(sliding) > 1:
        return f"{shares.pop():g} % of the length"
    return listing([count(stride) for stride in sorted({row.stride or 0 for row in sliding})], "or") + " tokens"


@dataclass(frozen=True)
class Shift:
    """How a series' bits per byte change from one length to a longer one, under one protocol."""

    series: Series
    protocol: str
    start: float
    end: float
    change: float | None
    low: float | None
    high: float | None
    from_value: float | None
    to_value: float | None
    runs: int


def reference_lengths(study: Study, series: Sequence[Series]) -> tuple[float, float] | None:
    """The length to compare from (the training length where it was evaluated, else the shortest) and the longest."""
    lengths = sorted({mark.x for one in series for name in protocols([one]) for mark in length_curve(one, name)})
    if not lengths:
        return None
    start = next((length for length in train_lengths(study, series) if length in lengths), lengths[0])
    return start, max(lengths[-1], start)


def shift_of(one: Series, name: str, start: float, end: float) -> Shift:
    """The change of `one` from `start` to `end`: the mean over seeds that have both, with the range of the seeds.

    None where some seeds failed at either length.
    """
    pairs = []
    ends = [mark for mark in length_curve(one, name) if mark.x in (start, end)]
    for evaluation in one.evaluations:
        values: dict[float, Row] = {
            row.length: row for row in smallest_strides(evaluation.rows) if row.protocol == name and row.usable
        }
        if start in values and end in values:
            pairs.append((values[start].bits_per_byte or 0.0, values[end].bits_per_byte or 0.0))
    if not pairs or any(mark.failed for mark in ends):
        return Shift(one, name, start, end, None, None, None, None, None, 0)
    changes = [after - before for before, after in pairs]
    first, last = (math.fsum(column) / len(pairs) for column in zip(*pairs, strict=True))
    several = len(pairs) > 1
    low, high = (min(changes), max(changes)) if several else (None, None)
    return Shift(one, name, start, end, math.fsum(changes) / len(changes), low, high, first, last, len(pairs))


def change_figure(study: Study, series: Sequence[Series]) -> Figure:
    """For every series, the change of bits per byte from the training length to the longest length, by protocol."""
    name, title = "change_beyond_training", "What sliding windows take away"
    header = ("series", "protocol", "from_length", "to_length", "from_bits_per_byte", "to_bits_per_byte", "change")
    reference = reference_lengths(study, series)
    names = protocols(series)
    evaluated = [one for one in series if one.evaluations]
    if reference is None or reference[0] == reference[1]:
        reason = "Needs at least two evaluated lengths" if evaluated else "No series was evaluated"
        return Figure(name, title, "", (reason,), None, header, ())
    start, end = reference
    shifts = {one.label: [shift_of(one, name_, start, end) for name_ in names] for one in evaluated}
    rows = tuple(
        (one.label, shift.protocol, int(start), int(end), shift.from_value, shift.to_value, shift.change)
        for one in evaluated
        for shift in shifts[one.label]
    )
    caption = (
        f"Change of bits per byte from {count(start)} to {count(end)} tokens ({factor(end / start)}); left of zero is "
        "better. A filled dot is measured in non-overlapping windows, where a longer window also means fewer cold "
        "starts; a ring in sliding windows, where that advantage is nearly gone. Between them lies what the protocol "
        "alone changes."
    )
    absent = [one.label for one in evaluated if all(shift.change is None for shift in shifts[one.label])]
    notes = tuple(f"{label}: no number at both {count(start)} and {count(end)} tokens" for label in absent)
    if len(absent) == len(evaluated):
        return Figure(name, title, caption, notes, None, header, rows)

    def order(one: Series) -> tuple[bool, float]:
        known = [shift.change for shift in shifts[one.label] if shift.change is not None]
        return not known, known[0] if known else 0.0

    ordered = sorted(evaluated, key=order)
    with drawing(name):
        svg = to_svg(_draw_changes(ordered, shifts, names), title, caption + " " + " · ".join(notes))
    return Figure(name, title, caption, notes, svg, header, rows)


def _draw_changes(ordered: Sequence[Series], shifts: dict[str, list[Shift]], names: Sequence[str]):
    letters = min(max(len(one.label) for one in ordered), parts.LABEL_LETTERS)
    left, column = 34 + letters * LABEL_SIZE * 0.56, 92.0
    right = 14 + column * len(names)
    height, top, bottom = ROW * len(ordered) + 8, 34.0, 36.0
    drawn = canvas(height + top + bottom)
    total = height + top + bottom
    axes = drawn.add_axes(
        (left / WIDTH, bottom / total, (WIDTH - left - right) / WIDTH, height / total),
    )
    width = WIDTH - left - right
    low, high = _change_limits([shift.change for one in ordered for shift in shifts[one.label]])
    axes.set_xlim(low, high)
    axes.set_ylim(len(ordered) - 0.5 + 4 / ROW, -0.5 - 4 / ROW)
    axes.set_yticks([])
    axes.grid(visible=True, axis="x")
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+g}".replace("-", "\u2212") if abs(value) > 1e-12 else "0")
    axes.set_xlabel("change of bits per byte  (← better · worse →)", fontsize=LABEL_SIZE, labelpad=5)
    axes.axvline(0, color=MUTED, linewidth=1.2, zorder=1)
    blend = axes.get_yaxis_transform()
    for index, name in enumerate(names):
        x = 1 + (right - 6 - column * (len(names) - 1 - index)) / width
        key = "● " if index == 0 else "○ "
        axes.text(x, -1.05, key + protocol(name), transform=blend, ha="right", fontsize=LABEL_SIZE, color=MUTED)
    for row, one in enumerate(ordered):
        _draw_change_row(axes, row, one, shifts[one.label], (low, high), left, right, column)
    return drawn


def _draw_change_row(
    axes: Axes,
    row: int,
    one: Series,
    shifts: Sequence[Shift],
    limits: tuple[float, float],
    left: float,
    right: float,
    column: float,
) -> None:
    style, (low, high) = look(one.index, one.trained), limits
    width = WIDTH - left - right
    blend = axes.get_yaxis_transform()
    axes.axhline(row, color=GRID, linewidth=0.8, zorder=0)
    label = shorten(one.label, parts.LABEL_LETTERS)
    axes.text(
        -(left - 24) / width, row, label, transform=blend, va="center_baseline", fontsize=LABEL_SIZE + 0.5, color=INK
    )
    key: dict[str, Any] = {"transform": blend, "clip_on": False, "color": style.colour}
    axes.plot([-(left - 13) / width], [row], marker=style.marker, markerfacecolor=style.face, **key)
    known = [shift.change for shift in shifts if shift.change is not None]
    inside = [min(max(value, low), high) for value in known]
    axes.plot(inside, [row] * len(inside), color=style.colour, linewidth=2.4, alpha=0.45, zorder=2)
    for index, shift in enumerate(shifts):
        x = 1 + (right - 6 - column * (len(shifts) - 1 - index)) / width
        text = change(shift.change)
        axes.text(x, row, text, transform=blend, ha="right", va="center_baseline", fontsize=LABEL_SIZE + 0.5, color=INK)
        if shift.change is None:
            continue
        if shift.low is not None and shift.high is not None:
            axes.plot(
                [max(shift.low, low), min(shift.high, high)], [row, row], color=style.colour, linewidth=1, zorder=2
            )
        marker = "o" if low <= shift.change <= high else ">" if shift.change > high else "<"
        axes.plot(
            [min(max(shift.change, low), high)],
            [row],
            marker=marker,
            # The ring is wider than the dot, so that both are seen where they coincide.
            markersize=5.5 if index == 0 else 9.5,
            markerfacecolor=style.colour if index == 0 else "none",
            markeredgecolor=style.colour,
            markeredgewidth=1.5,
            clip_on=False,
            zorder=5,
        )


def _change_limits(changes: Sequence[float | None]) -> tuple[float, float]:
    """Limits around zero and the changes; a few enormous ones are cut, as `robust_limits` does upwards."""
    known = sorted(abs(value) for value in changes if value is not None)
    median = known[len(known) // 2]
    reach = max(6 * median, 0.05)
    largest = known[-1] if known[-1] <= 1.6 * reach else reach
    values = [min(max(value, -largest), largest) for value in changes if value is not None]
    low, high = min(0.0, *values), max(0.0, *values)
    pad = 0.07 * (high - low or 0.1)
    return low - pad, high + pad

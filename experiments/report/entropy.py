"""How far attention spreads: the entropy of each layer's weights against the position of the query."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

from experiments.report import axes as parts
from experiments.report.axes import LINE, Figure, Label, Limits
from experiments.report.series import Mark, Series
from experiments.report.study import EntropyCurve, Study, sane
from experiments.report.style import MUTED, WIDTH, canvas, drawing, look, to_svg
from experiments.report.text import count

COLUMNS = 2
LETTERS = 10  # of the longest label, "layer 1000"


class Panel(NamedTuple):
    """One series: what was measured at its longest length, and at the training length where that is another."""

    series: Series
    trained: int | None
    longest: EntropyCurve
    shortest: EntropyCurve | None


def entropy_figure(study: Study, series: Sequence[Series]) -> Figure:
    """Mean entropy of attention of every layer against position, one panel for each series."""
    name, title = "attention_entropy", "Entropy of attention by position"
    header = ("series", "seed", "run_id", "length", "windows", "layer", "from", "to", "nats")
    rows = tuple(
        (*(one.label, evaluation.seed, evaluation.run_id, curve.length, curve.windows, layer + 1), *bucket)
        for one in series
        for evaluation in one.evaluations
        for curve in evaluation.entropies
        for layer, buckets in enumerate(curve.layers)
        for bucket in buckets
    )
    shown = [panel for one in series if (panel := _panel_of(one)) is not None]
    caption = (
        "Mean entropy of each layer's attention, over heads and a few windows, against the query's position. The "
        "dotted line is attention that weighs all earlier tokens alike, ln n; 0 is a single token. A line that keeps "
        "rising past the training length (dashed) spreads thinner than in training. Rings: windows of the training "
        "length."
    )
    notes = tuple(
        f"{one.label}: not measured in windows of {count(curve.length)} tokens ({curve.reason})"
        for one in series
        for evaluation in one.evaluations
        for curve in evaluation.entropies
        if curve.reason
    ) + tuple(
        f"{panel.series.label}: the first of {len(panel.series.evaluations)} runs"
        for panel in shown
        if len(panel.series.evaluations) > 1
    )
    if not shown:
        return Figure(name, title, caption, notes, None, header, rows, optional=True)
    with drawing(name):
        svg = to_svg(_draw(shown), title, caption + " " + " · ".join(notes))
    return Figure(name, title, caption, notes, svg, header, rows, optional=True)


def _panel_of(one: Series) -> Panel | None:
    """Of the first run that has curves."""
    for evaluation in one.evaluations:
        measured = sorted((curve for curve in evaluation.entropies if _marks(curve)), key=lambda curve: curve.length)
        if measured:
            shortest = measured[0] if len(measured) > 1 else None
            return Panel(one, evaluation.train_length, measured[-1], shortest)
    return None


def _marks(curve: EntropyCurve) -> list[list[Mark]]:
    """A curve of each layer, over the geometric middles of the buckets, counted from one."""
    layers = [
        [
            Mark(_centre(start, stop), nats, None, None, 1)
            for start, stop, nats in buckets
            if nats is not None and sane(nats)
        ]
        for buckets in curve.layers
    ]
    return layers if any(layers) else []


def _centre(start: int, stop: int) -> float:
    return math.sqrt((start + 1) * max(stop, start + 1))


def _uniform(curve: EntropyCurve) -> list[Mark]:
    """What attention that weighs all n earlier tokens alike has: the mean of ln n in every bucket of any layer."""
    buckets = sorted({(start, max(stop, start + 1)) for layer in curve.layers for start, stop, _ in layer})
    return [
        Mark(_centre(start, stop), (math.lgamma(stop + 1) - math.lgamma(start + 1)) / (stop - start), None, None, 1)
        for start, stop in buckets
    ]


def _draw(shown: Sequence[Panel]):
    columns = min(COLUMNS, len(shown))
    bands = math.ceil(len(shown) / columns)
    left, gap, top, bottom = 36.0, 30.0, 46.0, 40.0
    right = 34 + LETTERS * parts.LABEL_SIZE * 0.56
    height = max(200.0, max(len(panel.longest.layers) for panel in shown) * LINE + 8)
    total = bands * (top + height + bottom)
    width = (WIDTH - left - columns * right - (columns - 1) * gap) / columns
    drawn = canvas(total)
    for index, panel in enumerate(shown):
        band, column = divmod(index, columns)
        x = left + column * (width + right + gap)
        y = total - (band + 1) * (top + height + bottom) + bottom
        _draw_panel(drawn.add_axes((x / WIDTH, y / total, width / WIDTH, height / total)), panel)
    return drawn


def _draw_panel(axes: Axes, panel: Panel) -> None:
    layers = _marks(panel.longest)
    uniform = _uniform(panel.longest)
    xs = [mark.x for mark in uniform]
    top = max([1e-3, *(mark.y for marks in (uniform, *layers) for mark in marks)])
    limits = Limits(-0.03 * top, 1.05 * top, False)
    parts.length_axis(axes, xs, "position in the window, in tokens", parts.powers_of_two(xs[0], xs[-1]) or xs)
    parts.value_axis(axes, limits)
    parts.heading(axes, panel.series.label, "entropy of attention, nats", 0)
    parts.training_line(axes, [panel.trained] if panel.trained else [])
    axes.plot(xs, [mark.y for mark in uniform], color=MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    labels = []
    for layer, marks in enumerate(layers):
        if marks:
            style = look(layer, True)
            parts.draw_marks(axes, marks, style, limits)
            labels.append(Label(f"layer {layer + 1}", style, marks[-1].y))
    for layer, marks in enumerate(_marks(panel.shortest) if panel.shortest else []):
        axes.plot(
            [mark.x for mark in marks],
            [mark.y for mark in marks],
            linestyle="none",
            marker="o",
            markersize=8.5,
            markerfacecolor="none",
            markeredgecolor=look(layer, True).colour,
            zorder=5,
        )
    parts.end_labels(axes, labels, limits)

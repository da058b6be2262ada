"""Norms per layer: how large activations and gradients of the layers become through training, and who diverged."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from experiments.report.axes import LABEL_SIZE, Figure
from experiments.report.series import Member, Series
from experiments.report.study import Run, Study, number
from experiments.report.style import INK, MUTED, WIDTH, canvas, drawing, look, to_svg
from experiments.report.tables import Cell, Table
from experiments.report.text import ABSENT, bits, clean, count, listing, shorten
from experiments.report.training import tokens_label, tokens_of

RMS, GRADIENT = "layer_rms", "layer_gradient_norm"  # as metrics call them
QUANTITIES = {RMS: "activations, root mean square", GRADIENT: "gradients, L2 norm"}
HEADER = ("series", "seed", "run_id", "step", "tokens", "layer", "rms", "gradient_norm")
DRAWN_LINES = 60  # of metrics, at most, of each run
DRAWN_LAYERS = 5
BANDS = 2  # series side by side
# Sizes beyond these are drawn at the edge: the axis is for those that train.
SMALLEST, LARGEST = 1e-8, 1e8

COLUMNS = (
    ("series", False), ("seed", True), ("layers", True), ("steps not finite", True), ("last held-out bits/byte", True),
    ("activations, first layer", True), ("activations, last layer", True), ("gradients, first layer", True),
    ("gradients, last layer", True), ("largest gradient", True), ("status", False),
)  # fmt: skip


@dataclass(frozen=True)
class Watched:
    """What one line of metrics says of the layers: the size of each, None where it was not finite."""

    step: float | None
    tokens: float | None
    sizes: dict[str, tuple[float | None, ...]]


def watched(run: Run) -> list[Watched]:
    """The lines of metrics that tell of layers, oldest first; of a step logged twice the later."""
    lines: dict[Any, Watched] = {}
    for line in run.metrics:
        sizes = {key: line.get(key) for key in QUANTITIES}
        if all(isinstance(values, list) and values for values in sizes.values()):
            found = {key: tuple(number(value) for value in values) for key, values in sizes.items()}  # type: ignore[union-attr]
            lines[line.get("step")] = Watched(number(line.get("step")), tokens_of(line, run), found)
    return list(lines.values())


def layers_table(series: Sequence[Series]) -> Table:
    """One row a run, where any run was watched: how it ended, how many logged steps were not finite, and the sizes of
    its first and last layer when last measured."""
    members = [(one, member) for one in series if one.trained for member in one.members]
    if not any(watched(member.point.run) for _, member in members):
        return Table(COLUMNS, ())
    return Table(COLUMNS, tuple(_row(one, member) for one, member in members))


def _row(one: Series, member: Member) -> tuple[Cell, ...]:
    point, lines = member.point, watched(member.point.run)
    skipped = sum(1 for line in point.run.metrics if (number(line.get("skipped")) or 0) > 0)
    held_out = [
        value for line in point.run.metrics if (value := number(line.get("held_out_bits_per_byte"))) is not None
    ]
    norms = [value for line in point.run.metrics if (value := number(line.get("gradient_norm"))) is not None]
    ends: list[float | None] = [None] * 4
    if lines:
        ends = [lines[-1].sizes[key][place] for key in QUANTITIES for place in (0, -1)]
    status = "ok" if point.status == "finished" else point.status
    return (
        Cell(one.label, one.label),
        Cell(ABSENT if point.seed is None else clean(point.seed), point.seed),
        _cell(len(lines[-1].sizes[RMS]) if lines else None, count),
        _cell(skipped, count),
        _cell(held_out[-1] if held_out else None, bits),
        *(_cell(value, size) for value in ends),
        _cell(max(norms, default=None), size),
        Cell(f"{status}: {point.error}" if point.error else status, status),
    )


def _cell(value: float | None, write: Any) -> Cell:
    return Cell(write(value), value)


def size(value: float | None) -> str:
    """A size as `0.0123`, `4.56` or `1.2e+05`: three significant digits."""
    return ABSENT if value is None else f"{value:.3g}"


def layers_figure(study: Study, series: Sequence[Series]) -> Figure:
    """For every watched series, activations and gradients of some of its layers against training tokens."""
    name, title = "layer_norms", "Norms per layer"
    found = [
        (one, member, thinned(watched(member.point.run))) for one in series if one.trained for member in one.members
    ]
    rows = tuple(
        (one.label, member.point.seed, member.point.run.run_id, line.step, line.tokens, layer + 1, rms, gradient)
        for one, member, lines in found
        for line in lines
        for layer, (rms, gradient) in enumerate(zip(line.sizes[RMS], line.sizes[GRADIENT], strict=False))
    )
    shown: dict[str, list[Watched]] = {}
    for one, _, lines in found:
        if lines:
            shown.setdefault(one.label, lines)
    caption = (
        "The residual stream after a layer, as the root mean square over a batch of training text, and the gradient "
        f"over that layer's parameters, before clipping; of up to {DRAWN_LAYERS} layers from the first to the last. A "
        "line that ends in a cross stopped being finite there."
    )
    if any(len(one.members) > 1 for one in series if one.label in shown):
        caption += " Of several seeds, the first."
    if not shown:
        return Figure(name, title, caption, (), None, HEADER, rows, optional=True)
    notes = (f"layers drawn: {_layers_drawn(shown)}",)
    with drawing(name):
        svg = to_svg(_draw(shown), title, caption)
    return Figure(name, title, caption, notes, svg, HEADER, rows, optional=True)


def thinned(lines: Sequence[Watched]) -> list[Watched]:
    """At most DRAWN_LINES of them, evenly, the first and the last among them."""
    if len(lines) <= DRAWN_LINES:
        return list(lines)
    return [lines[round(i * (len(lines) - 1) / (DRAWN_LINES - 1))] for i in range(DRAWN_LINES)]


def some_layers(layers: int) -> list[int]:
    """Up to DRAWN_LAYERS of so many layers, evenly, the first and the last among them."""
    wanted = min(layers, DRAWN_LAYERS)
    return sorted({round(i * (layers - 1) / max(wanted - 1, 1)) for i in range(wanted)})


def _layers_drawn(shown: dict[str, list[Watched]]) -> str:
    depths = sorted({len(lines[0].sizes[RMS]) for lines in shown.values()})
    return "; ".join(f"{listing([str(i + 1) for i in some_layers(depth)])} of {depth}" for depth in depths)


def _draw(shown: dict[str, list[Watched]]):
    columns = min(BANDS, len(shown))
    left, gap, between, right, top, bottom, height = 34.0, 36.0, 34.0, 8.0, 30.0, 30.0, 78.0
    bands = math.ceil(len(shown) / columns)
    total = bands * (top + height + bottom)
    band_width = (WIDTH - left - right - (columns - 1) * gap) / columns
    width = (band_width - between) / len(QUANTITIES)
    limits = {key: _limits([line for lines in shown.values() for line in lines], key) for key in QUANTITIES}
    end = max((line.tokens or 0.0 for lines in shown.values() for line in lines), default=0.0)
    drawn = canvas(total)
    for index, (label, lines) in enumerate(shown.items()):
        band, column = divmod(index, columns)
        y = total - (band + 1) * (top + height + bottom) + bottom
        for place, (key, words) in enumerate(QUANTITIES.items()):
            x = left + column * (band_width + gap) + place * (width + between)
            axes = drawn.add_axes((x / WIDTH, y / total, width / WIDTH, height / total))
            _panel(axes, lines, key, limits[key], end)
            kwargs: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
            if place == 0:
                axes.annotate(shorten(label, 40), (0, 1), (0, 16), fontsize=9.5, fontweight="bold", color=INK, **kwargs)
            axes.annotate(words, (0, 1), (0, 5), fontsize=LABEL_SIZE - 1, color=MUTED, **kwargs)
    return drawn


def _limits(lines: Sequence[Watched], key: str) -> tuple[float, float]:
    values = [value for line in lines for value in line.sizes[key] if value is not None and value > 0]
    inside = [min(max(value, SMALLEST), LARGEST) for value in values] or [1.0]
    return min(inside) / 1.5, max(inside) * 1.5


def _panel(axes: Axes, lines: Sequence[Watched], key: str, limits: tuple[float, float], end: float) -> None:
    axes.set_yscale("log")
    axes.set_ylim(*limits)
    axes.set_xlim(0, max(end, 1.0) * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(lambda value, _: tokens_label(value))
    axes.yaxis.set_major_locator(LogLocator(numticks=5))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(labelsize=LABEL_SIZE - 1)
    for index, layer in enumerate(some_layers(len(lines[0].sizes[key]))):
        points = [(line.tokens or 0.0, line.sizes[key][layer]) for line in lines if layer < len(line.sizes[key])]
        finite = [(x, min(max(y, limits[0]), limits[1])) for x, y in points if y is not None and y > 0]
        colour = look(index, True).colour
        axes.plot([x for x, _ in finite], [y for _, y in finite], color=colour, linewidth=1.2, zorder=3)
        if finite and points[-1][1] is None:
            axes.plot(*finite[-1], marker="x", color=colour, markersize=5, zorder=4)

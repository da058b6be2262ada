"""The parts that figures share: panels, a logarithmic axis of lengths, the training length, labels at line ends, and an
honest upper limit: what lies above it is marked by an arrow and its value instead of flattening everything else.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from experiments.report.series import Mark
from experiments.report.style import AXIS, INK, MUTED, WIDTH, Look, canvas
from experiments.report.text import bits, count, shorten

LINE = 12.5  # points from one line of small text to the next
LABEL_SIZE = 9.0
LABEL_LETTERS = 30
STRIP_LINES = 6


@dataclass(frozen=True)
class Figure:
    """One figure of the report: its drawing (None where there is nothing to draw), its words, its data as CSV rows.

    An optional figure without rows is left out: it is about something that only some studies measure.
    """

    name: str
    title: str
    caption: str
    notes: tuple[str, ...]
    svg: str | None
    header: tuple[str, ...]
    rows: tuple[tuple, ...]
    optional: bool = False


@dataclass(frozen=True)
class Label:
    """A line's name at its right end; `y` is None where the line ends before the right edge or has no point."""

    text: str
    look: Look
    y: float | None
    remark: str = ""


@dataclass(frozen=True)
class Limits:
    """The y axis from `bottom` to `top`, and whether values above `top` exist."""

    bottom: float
    top: float
    clips: bool

    def inside(self, y: float) -> bool:
        return y <= self.top


def robust_limits(values: Sequence[float], anchors: Sequence[float]) -> Limits:
    """Limits that show all values, unless a few explode and would flatten the rest.

    `anchors` are values known to be sane, such as those at the training length. The axis reaches 2.5 times as far above
    the smallest value as the worst anchor and the median value do, and at least half the smallest value; only where the
    largest value lies beyond 1.6 times that reach is the axis cut there.
    """
    finite = sorted(value for value in values if math.isfinite(value))
    if not finite:
        return Limits(0.0, 1.0, any(value == math.inf for value in values))
    floor, median = finite[0], finite[len(finite) // 2]
    sane = [anchor for anchor in anchors if math.isfinite(anchor)]
    reach = max(2.5 * (max(sane, default=floor) - floor), 2.5 * (median - floor), 0.5 * abs(floor), 1e-3)
    top = finite[-1] if finite[-1] <= floor + 1.6 * reach else floor + reach
    pad = 0.06 * (top - floor) if top > floor else max(0.05 * abs(floor), 1e-3)
    return Limits(floor - pad, top + pad, any(value > top + pad for value in values))


def panels(
    columns: int,
    plot: float,
    labels: int,
    letters: int,
    strip: int,
    titled: bool,
    left: float = 36.0,
    bottom: float = 40.0,
) -> tuple[Canvas, list[Axes]]:
    """`columns` panels side by side over one drawing, each with room at its right for `labels` names of `letters`.

    `plot` is the least height of a panel in points; it grows with the number of labels. `strip` lines of clipped values
    fit above each panel, under its heading, which has a title of its own if `titled`.
    """
    height = max(plot, labels * LINE + 8)
    top = (46.0 if titled else 34.0) + strip * LINE
    drawn = canvas(height + top + bottom)
    right = (34 + letters * LABEL_SIZE * 0.56) if labels else 12.0
    gap = 14.0
    width = (WIDTH - left - columns * right - (columns - 1) * gap) / columns
    axes = []
    for column in range(columns):
        x = left + column * (width + right + gap)
        box = (x / WIDTH, bottom / (height + top + bottom), width / WIDTH, height / (height + top + bottom))
        axes.append(drawn.add_axes(box))
    return drawn, axes


def size_of(axes: Axes) -> tuple[float, float]:
    """Width and height of a panel in points."""
    box, size = axes.get_position(), axes.figure.get_size_inches()  # type: ignore[union-attr]
    return box.width * size[0] * 72, box.height * size[1] * 72


def heading(axes: Axes, title: str, unit: str, strip: int) -> None:
    """A panel's title (or none) and the quantity on its y axis, above the panel and its strip of clipped values."""
    height = 20 + strip * LINE
    kwargs: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    axes.annotate(title, (0, 1), (0, height + 13), fontsize=10.5, fontweight="bold", color=INK, **kwargs)
    axes.annotate(unit, (0, 1), (0, height), fontsize=LABEL_SIZE, color=MUTED, **kwargs)


def value_axis(axes: Axes, limits: Limits) -> None:
    axes.set_ylim(limits.bottom, limits.top)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "\u2212")))


def length_axis(axes: Axes, values: Sequence[float], name: str, ticks: Sequence[float] | None = None) -> None:
    """A logarithmic x axis over `values`, with at most eight of them (or of `ticks`) written out."""
    low, high = min(values), max(values)
    axes.set_xscale("log", base=2)
    pad = 1.12 if high == low else (high / low) ** 0.035
    axes.set_xlim(low / pad, high * pad)
    shown = sorted(set(ticks if ticks is not None else values))
    step = max(1, math.ceil(len(shown) / 8))
    shown = shown[::-1][::step][::-1]
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FixedFormatter([count(value) for value in shown]))
    axes.set_xlabel(name, fontsize=LABEL_SIZE, labelpad=5)


def powers_of_two(low: float, high: float) -> list[float]:
    """The powers of two from `low` to `high`."""
    return [2.0**k for k in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)]


def training_line(axes: Axes, lengths: Sequence[int]) -> None:
    """A dashed vertical line at every training length inside the axis, named above the panel."""
    low, high = axes.get_xlim()
    inside = [length for length in lengths if low <= length <= high]
    for index, length in enumerate(inside):
        axes.axvline(length, color=MUTED, linewidth=1, linestyle=(0, (3, 2.5)), zorder=1)
        share = math.log(length / low) / math.log(high / low)
        side = "left" if share < 0.2 else "right" if share > 0.8 else "center"
        word = f"trained at {count(length)}" if len(inside) == 1 or index == 0 else count(length)
        axes.annotate(
            word,
            (length, 1),
            (-3 if side == "left" else 3 if side == "right" else 0, 4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha=side,
            fontsize=8.5,
            color=MUTED,
            annotation_clip=False,
        )


def draw_marks(axes: Axes, marks: Sequence[Mark], style: Look, limits: Limits, shift: float = 1.0) -> None:
    """A line through the marks with their intervals: whiskers for one run, a band for several seeds.

    `shift` moves the marks sideways by a factor, so that whiskers of several series at one x stay apart. A mark above
    the limits becomes an arrow at the upper edge; the line leaves the panel on its way there.
    """
    finite = [mark for mark in marks if math.isfinite(mark.y)]
    xs = [mark.x * shift for mark in finite]
    ys = [mark.y for mark in finite]
    several = any(mark.runs > 1 for mark in finite)
    axes.plot(xs, ys, color=style.colour, linestyle=style.line, zorder=3)
    inside = [(x, mark) for x, mark in zip(xs, finite, strict=True) if limits.inside(mark.y)]
    axes.plot(
        [x for x, _ in inside],
        [mark.y for _, mark in inside],
        linestyle="none",
        marker=style.marker,
        markerfacecolor=style.face,
        markeredgecolor=style.colour,
        zorder=4,
    )
    if several:
        lows = [mark.y if mark.low is None else mark.low for mark in finite]
        highs = [mark.y if mark.high is None else mark.high for mark in finite]
        axes.fill_between(xs, lows, highs, color=style.colour, alpha=0.16, linewidth=0, zorder=2)
    else:
        for x, mark in inside:
            if mark.low is not None and mark.high is not None:
                axes.plot([x, x], [mark.low, mark.high], color=style.colour, alpha=0.4, linewidth=1, zorder=2)
    above = [mark.x * shift for mark in marks if not limits.inside(mark.y)]
    axes.plot(
        above, [limits.top] * len(above), linestyle="none", marker="^", color=style.colour, clip_on=False, zorder=5
    )


def clipped(marks: Sequence[Mark], limits: Limits) -> list[Mark]:
    """The marks that lie above the limits."""
    return [mark for mark in marks if not limits.inside(mark.y)]


def strip_height(columns: Sequence[Sequence[tuple[Look, Mark]]]) -> int:
    """Lines of text that the values clipped in one panel need: the largest number at one x, at most STRIP_LINES."""
    sizes: dict[tuple[int, float], int] = {}
    for column, entries in enumerate(columns):
        for _, mark in entries:
            sizes[column, mark.x] = sizes.get((column, mark.x), 0) + 1
    return min(max(sizes.values(), default=0), STRIP_LINES)


def clipped_strip(axes: Axes, entries: Sequence[tuple[Look, Mark]], write: Callable[[float], str] = bits) -> None:
    """Above the panel, at every x, the values that lie above its upper limit, each in its line's colour.

    Where some seeds failed, how many of them stands for the value.
    """
    for x in sorted({mark.x for _, mark in entries}):
        here = sorted(((style, mark) for style, mark in entries if mark.x == x), key=lambda entry: entry[1].y)
        shown = here if len(here) <= STRIP_LINES else here[: STRIP_LINES - 1]
        texts = [
            (f"▲ {mark.failed}/{mark.runs} failed" if mark.failed else f"▲ {write(mark.y)}", style.colour)
            for style, mark in shown
        ]
        if len(shown) < len(here):
            texts.append((f"{len(here) - len(shown)} more ▲", MUTED))
        for line, (text, colour) in enumerate(texts):
            axes.annotate(
                text,
                (x, 1),
                (0, 18 + line * LINE),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                fontsize=8.5,
                color=colour,
                annotation_clip=False,
            )


def spread(wanted: Sequence[float], distance: float, low: float, high: float) -> list[float]:
    """Ascending positions at least `distance` apart within low … high, as near to the ascending `wanted` as possible.

    Least squares under a minimum distance is an isotonic regression of wanted[i] − i · distance (pool adjacent
    violators); clamping the result keeps its order.
    """
    blocks: list[list[float]] = []
    for index, value in enumerate(wanted):
        blocks.append([value - index * distance, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, size = blocks.pop()
            blocks[-1] = [(blocks[-1][0] * blocks[-1][1] + mean * size) / (blocks[-1][1] + size), blocks[-1][1] + size]
    flat = [mean for mean, size in blocks for _ in range(int(size))]
    ceiling = max(low, high - (len(flat) - 1) * distance)
    return [min(max(value, low), ceiling) + index * distance for index, value in enumerate(flat)]


def end_labels(axes: Axes, labels: Sequence[Label], limits: Limits) -> None:
    """Names the lines at the right of the panel, each beside its end, with its marker; what ends early comes last."""
    width, height = size_of(axes)
    ending = sorted((label for label in labels if label.y is not None), key=lambda label: (label.y, label.text))
    early = [label for label in labels if label.y is None]
    span = limits.top - limits.bottom
    wanted = [height * (min(max(label.y or 0.0, limits.bottom), limits.top) - limits.bottom) / span for label in ending]
    floor = len(early) * LINE + (4 if early else 0)
    heights = spread(wanted, LINE, floor if ending else 0, height)
    for index, label in enumerate(reversed(early)):
        _end_label(axes, label, None, index * LINE, width, height)
    for label, start, end in zip(ending, wanted, heights, strict=True):
        _end_label(axes, label, start, end, width, height)


def _end_label(axes: Axes, label: Label, start: float | None, end: float, width: float, height: float) -> None:
    style, y = label.look, end / height
    kwargs: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
    if start is not None:
        axes.plot([1.0, 1 + 8 / width], [start / height, y], linewidth=0.8, color=AXIS, zorder=1, **kwargs)
    kwargs["color"] = style.colour
    axes.plot([1 + 9 / width, 1 + 25 / width], [y, y], linestyle=style.line, **kwargs)
    axes.plot([1 + 17 / width], [y], marker=style.marker, markerfacecolor=style.face, **kwargs)
    text = shorten(label.text, LABEL_LETTERS - len(label.remark)) + label.remark
    axes.text(1 + 30 / width, y, text, transform=axes.transAxes, va="center_baseline", fontsize=LABEL_SIZE, color=INK)


def label_letters(labels: Sequence[Label]) -> int:
    """Letters of the longest label as it is written."""
    return max((min(len(label.text) + len(label.remark), LABEL_LETTERS) for label in labels), default=0)

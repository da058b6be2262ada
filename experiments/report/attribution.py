"""What breaks beyond the training length: what every ablation takes from the loss there, or adds to it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from experiments.report import axes as parts
from experiments.report.axes import LABEL_SIZE, Figure
from experiments.report.extrapolation import ROW
from experiments.report.series import Mark, Series, average, survivors_notes
from experiments.report.study import Ablation, Study, sane
from experiments.report.style import GRID, INK, MUTED, WIDTH, canvas, drawing, look, to_svg
from experiments.report.text import ABSENT, change, count, listing, protocol

AS_IT_IS, AT_TRAINING_LENGTH = "as_it_is", "training_length"
NAMES = {
    "clipped": "distances clipped",
    "log_n": "scores × log length",
    "clipped_log_n": "both",
    "window": "latest tokens alone",
    "sinks": "latest and first tokens alone",
    AT_TRAINING_LENGTH: "at the training length",
}
PROTOCOLS = ("non_overlapping", "sliding")
VALUE = 62.0  # points at the right of a panel for a value


@dataclass(frozen=True)
class Block:
    """One series at one length: its ablations of all runs, by protocol and name."""

    series: Series
    length: int
    found: dict[tuple[str, str], tuple[Ablation, ...]]

    def mark(self, protocol_: str, name: str) -> Mark | None:
        """The difference from the model as it is, mean over runs, at x = 0; None where no run has it."""
        entries = self.found.get((protocol_, name), ())
        marks = average((0, entry.difference, entry.low, entry.high) for entry in entries)
        return marks[0] if marks and sane(marks[0].y) else None


def blocks(series: Sequence[Series]) -> list[Block]:
    """Every series that was attributed, at every length, in the order of the series."""
    found = []
    for one in series:
        entries = [entry for evaluation in one.evaluations for entry in evaluation.attributions]
        for length in sorted({entry.length for entry in entries}):
            rows: dict[tuple[str, str], tuple[Ablation, ...]] = {}
            for ablation in (row for entry in entries if entry.length == length for row in entry.ablations):
                key = (ablation.row.protocol, ablation.name)
                rows[key] = (*rows.get(key, ()), ablation)
            found.append(Block(one, length, rows))
    return found


def attribution_figure(study: Study, series: Sequence[Series]) -> Figure:
    """For every attributed series and length, the change of bits per byte under each ablation, by protocol."""
    name, title = "what_breaks", "What breaks beyond the training length"
    header = (
        *(
            "series",
            "seed",
            "run_id",
            "at_length",
            "ablation",
            "protocol",
            "length",
            "stride",
            "status",
            "bits_per_byte",
        ),
        *("low", "high", "difference", "difference_low", "difference_high", "reason"),
    )
    rows = tuple(
        (
            *(one.label, evaluation.seed, evaluation.run_id, entry.length, ablation.name, ablation.row.protocol),
            *(ablation.row.length, ablation.row.stride, ablation.row.shown_status, ablation.row.bits_per_byte),
            *(ablation.row.low, ablation.row.high, ablation.difference, ablation.low, ablation.high),
            ablation.row.reason,
        )
        for one in series
        for evaluation in one.evaluations
        for entry in evaluation.attributions
        for ablation in entry.ablations
    )
    shown = blocks(series)
    caption = _caption(shown, [entry.trained for one in series for e in one.evaluations for entry in e.attributions])
    measured = [one for one in series if any(evaluation.attributions for evaluation in one.evaluations)]
    notes = (*_notes(series), *survivors_notes(measured))
    if not any(block.mark(protocol_, key) for block in shown for protocol_ in PROTOCOLS for key in NAMES):
        return Figure(name, title, caption, notes, None, header, rows, optional=True)
    with drawing(name):
        svg = to_svg(_draw(shown), title, caption + " " + " · ".join(notes))
    return Figure(name, title, caption, notes, svg, header, rows, optional=True)


def _caption(shown: Sequence[Block], trained: Sequence[int | None]) -> str:
    lengths = [count(length) for length in sorted({length for length in trained if length})]
    trained_at = f" ({listing(lengths, 'or')} tokens)" if lengths else ""
    words = [
        "Change of bits per byte on the same tokens when one thing is put right, without retraining; left of zero is "
        "better. Distances clipped: no distance is longer than the longest trained. Scores × log length: attention "
        "stays as sharp as at the training length. Latest tokens alone: as many as the training length; with the first "
        "four among them in the row below. The dashed line is the loss at the training length itself"
        f"{trained_at}: a bar that reaches it repairs all that is lost."
    ]
    runs = [len(entries) for block in shown for entries in block.found.values()]
    if 1 in runs:
        words.append("Whiskers are paired 95 % bootstrap intervals over documents.")
    if any(number > 1 for number in runs):
        words.append("Bars of several seeds are means, their whiskers run from the lowest to the highest seed.")
    return " ".join(words)


def _notes(series: Sequence[Series]) -> list[str]:
    """The verdict of every run, and why ablations are missing is among its sentences."""
    notes = []
    for one in series:
        for evaluation in one.evaluations:
            seed = f" (seed {evaluation.seed})" if len(one.members) > 1 else ""
            for entry in evaluation.attributions:
                notes.append(f"{one.label}{seed} at {count(entry.length)} tokens: {' '.join(entry.verdict) or ABSENT}")
    return notes


def _draw(shown: Sequence[Block]):
    letters = min(max(len(text) for text in NAMES.values()), parts.LABEL_LETTERS)
    left, gap, top, bottom = 24 + letters * LABEL_SIZE * 0.56, 14.0, 40.0, 36.0
    names = [name for name in NAMES if name != AT_TRAINING_LENGTH]
    height = ROW * len(names) + 8
    total = len(shown) * (top + height + bottom)
    width = (WIDTH - left - gap) / 2 - VALUE
    drawn = canvas(total)
    for band, block in enumerate(shown):
        limits = _limits(block)
        for column, protocol_ in enumerate(PROTOCOLS):
            x = left + column * (width + VALUE + gap)
            y = total - (band + 1) * (top + height + bottom) + bottom
            axes = drawn.add_axes((x / WIDTH, y / total, width / WIDTH, height / total))
            _panel(axes, block, protocol_, limits, len(names))
            for row, name in enumerate(names):
                axes.axhline(row, color=GRID, linewidth=0.8, zorder=0)
                if column == 0:
                    kwargs: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center_baseline"}
                    axes.text(-(left - 12) / width, row, NAMES[name], fontsize=LABEL_SIZE + 0.5, color=INK, **kwargs)
                _bar(axes, row, block, protocol_, name, limits, width)
    return drawn


def _limits(block: Block) -> tuple[float, float]:
    """Both panels of a series share an axis: around zero, all bars and the loss at the training length."""
    marks = [mark for protocol_ in PROTOCOLS for name in NAMES if (mark := block.mark(protocol_, name)) is not None]
    bounds = [bound for mark in marks for bound in (mark.y, mark.low, mark.high) if bound is not None]
    low, high = min(0.0, *bounds, -1e-3), max(0.0, *bounds, 1e-3)
    pad = 0.07 * (high - low)
    return low - pad, high + pad


def _panel(axes: Axes, block: Block, protocol_: str, limits: tuple[float, float], rows: int) -> None:
    axes.set_xlim(*limits)
    axes.set_ylim(rows - 0.5 + 4 / ROW, -0.5 - 4 / ROW)
    axes.set_yticks([])
    axes.grid(visible=True, axis="x")
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+g}".replace("-", "\u2212") if abs(value) > 1e-12 else "0")
    axes.set_xlabel("change of bits per byte  (← better · worse →)", fontsize=LABEL_SIZE, labelpad=5)
    axes.axvline(0, color=MUTED, linewidth=1.2, zorder=1)
    reference = block.mark(protocol_, AT_TRAINING_LENGTH)
    if reference is not None:
        axes.axvline(reference.y, color=MUTED, linewidth=1, linestyle=(0, (3, 2.5)), zorder=1)
    kwargs: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    heading = f"{block.series.label} at {count(block.length)} tokens"
    axes.annotate(heading, (0, 1), (0, 21), fontsize=10.5, fontweight="bold", color=INK, **kwargs)
    axes.annotate(f"{protocol(protocol_)} windows", (0, 1), (0, 8), fontsize=LABEL_SIZE, color=MUTED, **kwargs)


def _bar(
    axes: Axes, row: int, block: Block, protocol_: str, name: str, limits: tuple[float, float], width: float
) -> None:
    """One ablation in one panel: its bar and whisker, and at the right its value, or in the panel why there is none."""
    colour, mark = look(block.series.index, block.series.trained).colour, block.mark(protocol_, name)
    kwargs: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center_baseline"}
    if mark is None:
        states = dict.fromkeys(entry.row.shown_status for entry in block.found.get((protocol_, name), ()))
        axes.text(0.02, row, listing(list(states)) or ABSENT, fontsize=LABEL_SIZE, color=MUTED, **kwargs)
        return
    axes.barh([row], [mark.y], height=0.5, color=colour, alpha=0.45, linewidth=0, zorder=2)
    if mark.low is not None and mark.high is not None and math.isfinite(mark.low) and math.isfinite(mark.high):
        axes.plot([mark.low, mark.high], [row, row], color=colour, linewidth=1.6, zorder=3)
    text = change(mark.y)
    axes.text(1 + (VALUE - 14) / width, row, text, ha="right", fontsize=LABEL_SIZE + 0.5, color=INK, **kwargs)

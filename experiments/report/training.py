"""The training curves: bits per byte (or nats per token) of each trained series against the tokens it has seen."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.report import axes as parts
from experiments.report.axes import Figure, Label, Limits
from experiments.report.series import Series
from experiments.report.study import Run, Study, number, sane
from experiments.report.style import Look, drawing, look, to_svg
from experiments.report.text import bits, count

DRAWN_POINTS = 300
Curve = tuple[np.ndarray, np.ndarray, int]  # tokens, finite values, how many were not finite
HEADER = (
    "series", "seed", "run_id", "step", "tokens", "loss", "bits_per_byte", "held_out_loss", "held_out_bits_per_byte",
    "learning_rate", "tokens_per_second", "seconds",
)  # fmt: skip


def training_figure(study: Study, series: Sequence[Series]) -> Figure:
    """Smoothed curves over the raw ones, in-loop evaluations as marks; several seeds give their mean and a band."""
    name, title = "training_curves", "Training"
    trained = [one for one in series if one.trained]
    runs = {one.label: [member.point.run for member in one.members] for one in trained}
    rows = tuple(
        (one.label, member.point.seed, run.run_id, number(line.get("step")), tokens_of(line, run), *_logged(line))
        for one in trained
        for member in one.members
        for run in (member.point.run,)
        for line in run.metrics
    )
    logged = [line for entries in runs.values() for run in entries for line in run.metrics if "loss" in line]
    in_bits = all(number(line.get("bits_per_byte")) is not None for line in logged)
    key, unit = ("bits_per_byte", "bits per byte") if in_bits else ("loss", "nats per token")
    curves = {
        label: [curve for run in entries if len((curve := _curve(run, key))[0])] for label, entries in runs.items()
    }
    held_out = {label: [_curve(run, "held_out_" + key) for run in entries] for label, entries in runs.items()}
    shown = [one for one in trained if curves[one.label]]
    caption = f"Training loss in {unit} against training tokens: smoothed, over the logged values (faint)."
    if any(len(xs) for entries in held_out.values() for xs, *_ in entries):
        caption += " Marks: held-out text, measured during training."
    if any(len(curves[one.label]) > 1 for one in shown):
        caption += " Several seeds: their mean, and a band from the lowest to the highest."
    notes = []
    for label, entries in runs.items():
        wrong = sum(_curve(run, key)[2] for run in entries)
        if wrong:
            notes.append(f"{label}: {count(wrong)} logged loss(es) not finite, left as gaps")
        elif not curves[label] and any(run.config for run in entries):
            notes.append(f"{label}: nothing logged")
    if not shown:
        return Figure(name, title, caption, tuple(notes), None, HEADER, rows)
    smoothed = {one.label: _smooth_mean(curves[one.label]) for one in shown}
    end = max(tokens[-1] for tokens, *_ in smoothed.values())
    late = [y for tokens, mean, *_ in smoothed.values() for y in (*mean[tokens >= 0.06 * end], mean[-1])]
    limits = parts.robust_limits(late, late)
    start = max(mean[0] for _, mean, *_ in smoothed.values())
    if start > limits.top:
        notes.append(f"The first steps lie above the axis, the highest at {bits(start)}")
    labels = []
    for one in shown:
        tokens, mean, *_ = smoothed[one.label]
        ends = tokens[-1] >= 0.97 * end
        remark = "" if ends else f" (to {tokens_label(tokens[-1])})"
        labels.append(Label(one.label, look(one.index, True), float(mean[-1]) if ends else None, remark))
    with drawing(name):
        drawn, (panel,) = parts.panels(1, 250, len(labels), parts.label_letters(labels), 0, False)
        panel.set_xlim(0, max(end, 1.0) * 1.01)
        panel.xaxis.set_major_formatter(lambda value, _: tokens_label(value))
        panel.set_xlabel("training tokens", fontsize=parts.LABEL_SIZE, labelpad=5)
        parts.value_axis(panel, limits)
        parts.heading(panel, "", f"{unit}, lower is better", 0)
        for one in shown:
            _draw(panel, look(one.index, True), smoothed[one.label], curves[one.label], held_out[one.label], limits)
        parts.end_labels(panel, labels, limits)
        svg = to_svg(drawn, title, caption + " " + " · ".join(notes))
    return Figure(name, title, caption, tuple(notes), svg, HEADER, rows)


def _draw(
    panel: Axes,
    style: Look,
    smoothed: tuple[np.ndarray, ...],
    curves: Sequence[Curve],
    held_out: Sequence[Curve],
    limits: Limits,
) -> None:
    """One series: its smoothed line, the raw one or the band of its seeds, and its held-out marks."""
    tokens, mean, low, high = smoothed
    panel.plot(tokens, mean, color=style.colour, linestyle=style.line, zorder=3)
    if len(curves) > 1:
        panel.fill_between(tokens, low, high, color=style.colour, alpha=0.16, linewidth=0, zorder=2)
    else:
        xs, ys, _ = curves[0]
        step = max(1, len(xs) // DRAWN_POINTS)
        panel.plot(xs[::step], ys[::step], color=style.colour, alpha=0.25, linewidth=0.7, zorder=2)
    for xs, ys, _ in held_out:
        kept = ys <= limits.top
        marks: dict[str, Any] = {
            "marker": style.marker,
            "markersize": 4.5,
            "markerfacecolor": style.face,
            "color": style.colour,
        }
        panel.plot(xs[kept], ys[kept], linestyle="none", zorder=4, **marks)


def tokens_of(line: Mapping[str, Any], run: Run) -> float | None:
    """The tokens seen at a line of metrics: as logged, else step × batch size × length where the configuration says."""
    tokens, step = number(line.get("tokens")), number(line.get("step"))
    train = run.config.get("train")
    if tokens is None and step is not None and isinstance(train, Mapping):
        batch, length = number(train.get("batch_size")), number(train.get("length"))
        if batch is not None and length is not None:
            tokens = step * batch * length
    return tokens


def _curve(run: Run, key: str) -> Curve:
    """Tokens and finite values of `key`, in the order of tokens, and how many values were not finite."""
    pairs, wrong = {}, 0
    for line in run.metrics:
        x, y = tokens_of(line, run), number(line.get(key))
        if x is None or y is None or not math.isfinite(x):
            continue
        if sane(y):
            pairs[x] = y  # After a resume a step is logged again: the later line is what training went on from.
        else:
            wrong += 1
    xs = sorted(pairs)
    return np.array(xs, float), np.array([pairs[x] for x in xs], float), wrong


def smooth(values: np.ndarray) -> np.ndarray:
    """A centred moving mean over 4 % of the curve (at least 3 values), narrower towards the ends."""
    width = max(1, len(values) // 50)
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    # The same reach to both sides, so that the ends of a falling curve are not biased.
    reach = np.minimum(width, np.minimum(index, len(values) - 1 - index))
    return (total[index + reach + 1] - total[index - reach]) / (2 * reach + 1)


def _smooth_mean(curves: Sequence[Curve]) -> tuple[np.ndarray, ...]:
    """Tokens, mean, minimum and maximum of the smoothed curves on a grid that all of them reach."""
    first, last = max(xs[0] for xs, *_ in curves), min(xs[-1] for xs, *_ in curves)
    if first > last:
        first = last
    grid = np.unique(np.linspace(first, last, DRAWN_POINTS))
    stack = np.stack([np.interp(grid, xs, smooth(ys)) for xs, ys, _ in curves])
    return grid, stack.mean(0), stack.min(0), stack.max(0)


def tokens_label(value: float) -> str:
    """Tokens as `0`, `500k`, `1.35M` or `2B`."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.2f}".rstrip("0").rstrip(".") + unit
    return f"{value:.0f}"


def _logged(line: Mapping[str, Any]) -> tuple[float | None, ...]:
    """The numbers of one line of metrics, in the order of HEADER."""
    return tuple(number(line.get(key)) for key in HEADER[5:])

"""What context is worth: loss by position in the longest window, and loss on the same final tokens as context grows."""

import math
from collections.abc import Sequence

from experiments.report import axes as parts
from experiments.report.axes import Figure, Label
from experiments.report.series import Mark, Series, average, survivors_notes, train_lengths
from experiments.report.study import Bucket, Study
from experiments.report.style import drawing, look, to_svg
from experiments.report.text import bits, count, listing

SETTLED = 16


def position_figure(study: Study, series: Sequence[Series]) -> Figure:
    """Bits per byte by position in the window, in log-spaced buckets, at each series' longest evaluated length."""
    name, title = "loss_by_position", "Loss by position in the window"
    header = ("series", "seed", "run_id", "length", "from", "to", "bits_per_byte", "nats_per_token", "tokens")
    rows = tuple(
        (
            one.label,
            evaluation.seed,
            evaluation.run_id,
            evaluation.position_length,
            bucket.start,
            bucket.stop,
            bucket.bits_per_byte,
            bucket.nats_per_token,
            bucket.tokens,
        )
        for one in series
        for evaluation in one.evaluations
        for bucket in evaluation.buckets
    )
    curves = {
        one.label: average(
            (_centre(bucket), bucket.bits_per_byte, None, None)
            for evaluation in one.evaluations
            for bucket in evaluation.buckets
        )
        for one in series
    }
    lengths = [evaluation.position_length or 0 for one in series for evaluation in one.evaluations]
    caption = (
        f"Mean bits per byte of the tokens at each position of windows of {count(max(lengths, default=0))} tokens, in "
        "buckets that grow with the position. Early positions have little context; past the training length (dashed) a "
        "line that rises has lost its way, one that falls still gains from older tokens."
    )
    shorter = [
        f"{one.label}: windows of {count(evaluation.position_length)}, the longest it was evaluated at"
        for one in series
        for evaluation in one.evaluations[:1]
        if evaluation.buckets and (evaluation.position_length or 0) < max(lengths)
    ]
    settled = [mark.y for curve in curves.values() for mark in curve if mark.x >= SETTLED]
    values = settled or [mark.y for curve in curves.values() for mark in curve]
    anchors = [mark.y for curve in curves.values() for mark in curve if SETTLED <= mark.x <= _first(study, series)]
    return _curves(
        study, series, curves, name, title, caption, shorter, header, rows,
        values, anchors, "bits per byte, lower is better", "position in the window, in tokens", False,
    )  # fmt: skip


def context_figure(study: Study, series: Sequence[Series]) -> Figure:
    """Loss on the same final tokens against the length of the window that ends with them."""
    name, title = "context_gain", "What context is worth"
    header = (
        "series",
        "seed",
        "run_id",
        "final_tokens",
        "context",
        "nats_per_token",
        "bits_per_byte",
        "low",
        "high",
        "tokens",
    )
    rows = tuple(
        (
            *(one.label, evaluation.seed, evaluation.run_id, evaluation.final_tokens, point.context),
            *(point.nats_per_token, point.bits_per_byte, point.low, point.high, point.tokens),
        )
        for one in series
        for evaluation in one.evaluations
        for point in evaluation.contexts
    )
    measured = [point for one in series for evaluation in one.evaluations for point in evaluation.contexts]
    in_bits = all(point.bits_per_byte is not None for point in measured)
    curves = {
        one.label: average(
            (point.context, point.bits_per_byte, point.low, point.high)
            if in_bits
            else (point.context, point.nats_per_token, None, None)
            for evaluation in one.evaluations
            for point in evaluation.contexts
            if point.context > 0
        )
        for one in series
    }
    finals = sorted({item.final_tokens for one in series for item in one.evaluations if item.final_tokens})
    scored = listing([count(final) for final in finals], "or")
    caption = (
        f"Loss on the same final {scored} tokens while the context before and among them grows. A model that uses "
        "distant text keeps falling; a flat line ignores it; a rising one is confused by it."
    )
    tokenizers = {str(point.run.provenance.get("tokenizer_hash")) for point in study.points if point.run.provenance}
    notes = []
    if len(tokenizers) > 1:
        notes.append("The tokenizers differ: the same number of final tokens covers different text")
    unit = "bits per byte" if in_bits else "nats per token"
    values = [mark.y for curve in curves.values() for mark in curve]
    values += [
        bound for curve in curves.values() for mark in curve for bound in (mark.low, mark.high) if bound is not None
    ]
    anchors = [mark.y for curve in curves.values() for mark in curve if mark.x <= _first(study, series)]
    return _curves(
        study, series, curves, name, title, caption, notes, header, rows,
        values, anchors, f"{unit}, lower is better", "context in tokens", True,
    )  # fmt: skip


def _window(one: Series) -> int:
    """The longest window whose positions were measured."""
    return max(evaluation.position_length or 0 for evaluation in one.evaluations)


def _centre(bucket: Bucket) -> float:
    """The geometric middle of a bucket's positions, counted from one so that the first has a logarithm."""
    return math.sqrt((bucket.start + 1) * max(bucket.stop, bucket.start + 1))


def _first(study: Study, series: Sequence[Series]) -> float:
    return next(iter(train_lengths(study, series)), math.inf)


def _curves(
    study: Study,
    series: Sequence[Series],
    curves: dict[str, list[Mark]],
    name: str,
    title: str,
    caption: str,
    notes: Sequence[str],
    header: tuple[str, ...],
    rows: tuple[tuple, ...],
    values: Sequence[float],
    anchors: Sequence[float],
    unit: str,
    x_name: str,
    written: bool,
) -> Figure:
    """One panel of curves over a logarithmic axis; `written`: the values beyond the axis are written above it."""
    shown = [one for one in series if curves[one.label]]
    absent = [one.label for one in series if one.evaluations and not curves[one.label]]
    if absent and shown:
        notes = [*notes, f"Not measured: {listing(absent)}"]
    notes = [*notes, *survivors_notes(shown)]
    if not shown:
        return Figure(name, title, caption, tuple(notes), None, header, rows)
    limits = parts.robust_limits(values, anchors)
    above = [(look(one.index, one.trained), mark) for one in shown for mark in parts.clipped(curves[one.label], limits)]
    if above and not written:
        highest = max(above, key=lambda entry: entry[1].y)[1]
        notes = [*notes, f"▲: beyond the axis; the highest is {bits(highest.y)} at position {count(highest.x)}"]
        # Buckets are too close for a number each: the end of every line that leaves the axis for good is written.
        above = [(style, mark) for style, mark in above if any(mark is curves[one.label][-1] for one in shown)]
    longest = max(mark.x for one in shown for mark in curves[one.label])
    labels = []
    for one in shown:
        last = curves[one.label][-1]
        ends = last.x >= 0.75 * longest
        remark = "" if ends else f" (to {count(last.x if written else _window(one))})"
        labels.append(Label(one.label, look(one.index, one.trained), last.y if ends else None, remark))
    strip = parts.strip_height([above])
    xs = sorted({mark.x for one in shown for mark in curves[one.label]})
    with drawing(name):
        drawn, (panel,) = parts.panels(1, 250, len(labels), parts.label_letters(labels), strip, False)
        ticks = xs if written else parts.powers_of_two(xs[0], xs[-1])
        parts.length_axis(panel, xs, x_name, ticks or xs)
        parts.value_axis(panel, limits)
        parts.heading(panel, "", unit, strip)
        parts.training_line(panel, train_lengths(study, series))
        for position, one in enumerate(shown):
            shift = 2 ** (0.12 * (position + 0.5) / len(shown) - 0.06) if written else 1.0
            parts.draw_marks(panel, curves[one.label], look(one.index, one.trained), limits, shift)
        parts.clipped_strip(panel, above)
        parts.end_labels(panel, labels, limits)
        svg = to_svg(drawn, title, caption + " " + " · ".join(notes))
    return Figure(name, title, caption, tuple(notes), svg, header, rows)

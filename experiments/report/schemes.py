"""Figures of what the schemes do: bias and decay by distance, and the rotary spectrum under each scaling."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from experiments.pictures import curves as numbers
from experiments.pictures.curves import BIAS, SIMILARITY, Curve, Spectrum
from experiments.report import axes as parts
from experiments.report.axes import LABEL_SIZE, Figure, Limits
from experiments.report.study import Study
from experiments.report.style import HUES, MUTED, WIDTH, canvas, drawing, to_svg
from experiments.report.text import clean, count, factor, listing
from models.config import ModelConfig
from models.errors import InvalidInput
from models.positions import PositionScheme, Rotary, Scaling
from models.positions.index import Index
from train.config import fill_lengths
from train.configuration import from_config_dict

COLUMNS = 3
PLOT = 132.0
LOWEST_BIAS = 20.0
HUE = HUES[0][0]


@dataclass(frozen=True)
class Panel:
    """One curve, and what is drawn in grey behind it."""

    curve: Curve
    under: Curve | None = None


@dataclass(frozen=True)
class Schemes:
    """What is drawn: panels of curves, and for each rotary scheme, by title, its spectra under each scaling."""

    panels: tuple[Panel, ...]
    spectra: dict[str, list[list[Spectrum]]]
    trained: int


def panels_of(
    scheme: PositionScheme,
    title: str,
    model: ModelConfig,
    trained: int,
    length: int,
    scalings: Sequence[str],
    all_: bool,
) -> list[Panel]:
    """The panel of a scheme that is not learned; of a rotary one also those under `scalings`, at the factor length /
    trained, and, if `all_`, under every index transform; not those that change nothing at their defaults."""
    own = numbers.curve(scheme, title, model, length)
    found = [Panel(own)]
    if isinstance(scheme, Rotary):
        plain = numbers.scaled(scheme, "none", 1, model, trained)
        under = own if plain == scheme else numbers.curve(plain, title, model, length)
        others: list[PositionScheme] = [
            numbers.scaled(scheme, name, length / trained, model, trained) for name in scalings
        ]
        others += numbers.transformed(plain, length, model, trained) if all_ else []
        for other in others:
            curve = numbers.curve(other, numbers.title_of(other), model, length)
            if not np.allclose(curve.value_HxN, under.value_HxN, atol=1e-6):
                found.append(Panel(curve, under))
    return found


def draw(content: Schemes) -> list[Figure]:
    """Bias, decay and spectrum, each without rows where there is nothing for it."""
    biases = [panel for panel in content.panels if panel.curve.quantity == BIAS]
    decays = [panel for panel in content.panels if panel.curve.quantity != BIAS]
    return [_bias_figure(biases, content), _decay_figure(decays, content), _spectrum_figure(content)]


CURVE_HEADER = ("scheme", "quantity", "layer", "head", "distance", "value")


def _curve_rows(panels: Sequence[Panel]) -> tuple[tuple, ...]:
    return tuple(
        (curve.title, curve.quantity, curve.layer, head, int(distance), float(value))
        for curve in (panel.curve for panel in panels)
        for head, value_N in enumerate(curve.value_HxN, 1)
        for distance, value in zip(curve.distance_N, value_N, strict=True)
    )


def _bias_figure(panels: Sequence[Panel], content: Schemes) -> Figure:
    name, title = "bias_by_distance", "Bias by distance"
    if not panels:
        return Figure(name, title, "", (), None, CURVE_HEADER, (), optional=True)
    learned = any(panel.curve.layer is not None for panel in panels)
    caption = (
        "What each scheme adds to the logits of the last token of a text, against the distance of the key, less the "
        "most that it adds anywhere in that head. A key at −5 keeps 0.7 % of its weight; the axis ends at "
        f"−{LOWEST_BIAS:g} at the latest. "
    )
    caption += (
        "Lines are the mean of a layer's heads; the band runs from the lowest to the highest. "
        if learned
        else "Lines are heads. "
    )
    caption += f"Distance 0 has no place on the axis; dashed: trained at {count(content.trained)} tokens."
    with drawing(name):
        drawn, grid = _grid(len(panels))
        together = min(float(_below_best(panel.curve).min()) for panel in panels)
        for index, (axes, panel) in enumerate(zip(grid, panels, strict=True)):
            curve, bias_HxN = panel.curve, _below_best(panel.curve)
            # Layers of one model are there to be compared.
            lowest = together if learned else float(bias_HxN.min())
            limits = _padded(max(lowest, -LOWEST_BIAS), 0.0)
            _distance_axis(axes, curve, limits, content.trained, index >= len(panels) - COLUMNS)
            where_N, heads = curve.distance_N[1:], len(bias_HxN)
            if curve.layer is None:
                for row, line in enumerate(bias_HxN):
                    axes.plot(where_N, line[1:], color=HUE, alpha=_shade(row, heads), zorder=3)
                many = f"{heads} heads, from head 1 (strong)" if heads > 1 else "1 head"
                parts.heading(axes, curve.title, f"bias, {many}", 0)
            else:
                low, high = bias_HxN[:, 1:].min(axis=0), bias_HxN[:, 1:].max(axis=0)
                axes.fill_between(where_N, low, high, color=HUE, alpha=0.16, linewidth=0)
                axes.plot(where_N, bias_HxN[:, 1:].mean(axis=0), color=HUE, zorder=3)
                parts.heading(axes, f"{curve.title}, layer {curve.layer}", f"bias, {heads} heads", 0)
        svg = to_svg(drawn, title, caption)
    return Figure(name, title, caption, (), svg, CURVE_HEADER, _curve_rows(panels), optional=True)


def _smooth(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Distances from 1 on, eight to a doubling, and the mean of the values within a quarter of a doubling of each."""
    distance_N, value_N = curve.distance_N[1:], curve.value_HxN[0, 1:]
    octave_N = np.log2(distance_N)
    drawn_M = np.union1d(np.unique(np.round(8 * octave_N), return_index=True)[1], [len(octave_N) - 1])
    near_MxN = np.abs(octave_N[drawn_M, None] - octave_N) <= 0.25
    return distance_N[drawn_M], near_MxN @ value_N / near_MxN.sum(axis=1)


def _below_best(curve: Curve) -> np.ndarray:
    return curve.value_HxN - curve.value_HxN.max(axis=1, keepdims=True)


def _decay_figure(panels: Sequence[Panel], content: Schemes) -> Figure:
    name, title = "score_by_distance", "Decay with distance"
    if not panels:
        return Figure(name, title, "", (), None, CURVE_HEADER, (), optional=True)
    caption = (
        "The logit of two equal unit vectors, all of whose numbers are alike, against their distance: as it is (faint) "
        "and its mean over half a doubling of the distance"
    )
    farthest = max(int(panel.curve.distance_N[-1]) + 1 for panel in panels)
    if any(panel.under is not None for panel in panels):
        caption += (
            f"; grey: without scaling or transform. Scalings are at {factor(max(1.0, farthest / content.trained))}, "
            f"for a text of {count(farthest)} tokens"
        )
    if any(panel.under and panel.curve.title.endswith(f" · {name}") for panel in panels for name in Index.registry):
        caption += "; index transforms have their default numbers"
    caption += f"; dashed: trained at {count(content.trained)} tokens."
    if any(panel.curve.quantity == SIMILARITY for panel in panels):
        caption += " Of schemes that add to the embeddings: the cosine between what two positions get."
    values = np.concatenate([curve.value_HxN.ravel() for curve in (panel.curve for panel in panels)])
    limits = _padded(min(float(values.min()), 0.0), float(values.max()))
    with drawing(name):
        drawn, grid = _grid(len(panels))
        for index, (axes, panel) in enumerate(zip(grid, panels, strict=True)):
            curve = panel.curve
            _distance_axis(axes, curve, limits, content.trained, index >= len(panels) - COLUMNS)
            axes.axhline(0, color=MUTED, linewidth=0.6, zorder=1)
            if panel.under is not None:
                axes.plot(*_smooth(panel.under), color=MUTED, alpha=0.6, linewidth=1.3, zorder=2)
            where_N, value_N = curve.distance_N[1:], curve.value_HxN[0, 1:]
            axes.plot(where_N, value_N, color=HUE, alpha=0.3, linewidth=0.7, zorder=2)
            axes.plot(*_smooth(curve), color=HUE, zorder=3)
            unit = "cosine of positions" if curve.quantity == SIMILARITY else "logit of equal vectors"
            parts.heading(axes, curve.title, unit, 0)
        svg = to_svg(drawn, title, caption)
    return Figure(name, title, caption, (), svg, CURVE_HEADER, _curve_rows(panels), optional=True)


SPECTRUM_HEADER = ("scheme", "scaling", "factor", "pair", "wavelength", "trained_turns", "turns")


def _spectrum_figure(content: Schemes) -> Figure:
    name, title = "rotary_spectrum", "The rotary spectrum"
    spectra = {scheme: scalings for scheme, scalings in content.spectra.items() if scalings}
    if not spectra:
        return Figure(name, title, "", (), None, SPECTRUM_HEADER, (), optional=True)
    rows = tuple(
        (scheme, one.title, one.factor, pair, *(float(value) for value in values))
        for scheme, scalings in spectra.items()
        for found in scalings
        for one in found
        for pair, values in enumerate(zip(one.wavelength_P, one.trained_turns_P, one.turns_P, strict=True))
    )
    slow = []
    for scheme, scalings in spectra.items():
        turned = scalings[0][0].trained_turns_P
        slow.append(f"{int((turned < 1).sum())} of {len(turned)} pairs of {scheme}")
    caption = (
        f"Tokens that each rotary pair takes for a turn; grey: as trained, blue: under the scaling, at factors from "
        f"{numbers.FACTORS[0]} (faint) to {numbers.FACTORS[-1]} (strong). In {count(content.trained)} tokens of "
        f"training (dashed), {listing(slow)} turn less than once: of these, longer texts show angles that training "
        f"never did, unless the scaling slows them down. Above each panel, how many do so at {numbers.FACTORS[-1]} "
        "times the length."
    )
    shown = [(scheme, found) for scheme, scalings in spectra.items() for found in scalings]
    with drawing(name):
        drawn, grid = _grid(len(shown))
        finite = np.concatenate([one.wavelength_P for _, found in shown for one in found])
        finite = finite[np.isfinite(finite)]
        for index, (axes, (scheme, found)) in enumerate(zip(grid, shown, strict=True)):
            head = f"{scheme} · {found[0].title}" if found[0].title != "none" else scheme
            _spectrum_panel(axes, found, content.trained, finite, index >= len(shown) - COLUMNS)
            unseen = found[-1].unseen()
            parts.heading(axes, head, f"tokens a turn; at {found[-1].factor}×, {unseen} pairs at new angles", 0)
        svg = to_svg(drawn, title, caption)
    return Figure(name, title, caption, (), svg, SPECTRUM_HEADER, rows, optional=True)


def _spectrum_panel(axes: Axes, found: Sequence[Spectrum], trained: int, finite: np.ndarray, last: bool) -> None:
    pairs = np.arange(len(found[0].wavelength_P))
    with np.errstate(divide="ignore"):
        plain_P = trained / found[0].trained_turns_P
    axes.plot(pairs, plain_P, color=MUTED, alpha=0.7, linewidth=1.3, marker="o", markersize=2.2)
    for row, one in enumerate(reversed(found)):
        if one.title != "none":
            axes.plot(pairs, one.wavelength_P, color=HUE, alpha=_shade(row, len(found)), linewidth=1.3, zorder=3)
    axes.set_yscale("log", base=2)
    low, high = float(finite.min()), float(max(finite.max(), trained))
    axes.set_ylim(low / 1.3, high * 1.3)
    ticks = parts.powers_of_two(low, high)
    ticks = ticks[:: max(1, math.ceil(len(ticks) / 6))]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FixedFormatter([_short(tick) for tick in ticks]))
    axes.axhline(trained, color=MUTED, linewidth=1, linestyle=(0, (3, 2.5)), zorder=1)
    # Where the lines are not: they rise from the lower left to the upper right.
    left = trained > math.sqrt(low * high)
    axes.annotate(
        f"trained at {count(trained)}",
        (0 if left else 1, trained),
        (3 if left else -2, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="left" if left else "right",
        fontsize=8,
        color=MUTED,
    )
    axes.set_xlim(-0.02 * len(pairs), 1.02 * (len(pairs) - 1))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if last:
        axes.set_xlabel("rotary pair, fastest first", fontsize=LABEL_SIZE, labelpad=5)


def _short(value: float) -> str:
    """Tokens as `512`, `4k` or `1M`, in powers of two."""
    for size, unit in ((2**20, "M"), (2**10, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _shade(row: int, rows: int) -> float:
    """Opacity of a line, from 1 for the first to 0.3 for the last."""
    return 1.0 - 0.7 * row / max(rows - 1, 1)


def _padded(low: float, high: float) -> Limits:
    pad = 0.06 * (high - low) or 0.5
    return Limits(low - pad, high + pad, False)


def _distance_axis(axes: Axes, curve: Curve, limits: Limits, trained: int, last: bool) -> None:
    farthest = max(float(curve.distance_N[-1]), 2.0)
    ticks = parts.powers_of_two(1, farthest)
    ticks = ticks[:: max(1, math.ceil(len(ticks) / 6))]
    parts.length_axis(axes, [1.0, farthest], "distance in tokens" if last else "", ticks)
    axes.xaxis.set_major_formatter(FixedFormatter([_short(tick) for tick in ticks]))
    parts.value_axis(axes, limits)
    axes.yaxis.get_major_locator().set_params(nbins=4)  # type: ignore[call-arg]
    axes.axvline(trained, color=MUTED, linewidth=1, linestyle=(0, (3, 2.5)), zorder=1)


def _grid(panels: int) -> tuple[Canvas, list[Axes]]:
    """Panels of one size, COLUMNS to a row."""
    rows = math.ceil(panels / COLUMNS)
    left, right, gap, top, bottom = 40.0, 8.0, 40.0, 50.0, 36.0
    width = (WIDTH - left - right - (COLUMNS - 1) * gap) / COLUMNS
    total = rows * (top + PLOT + bottom)
    drawn = canvas(total)
    grid = []
    for index in range(panels):
        row, column = divmod(index, COLUMNS)
        x, y = left + column * (width + gap), total - (row + 1) * (top + PLOT + bottom) + bottom
        grid.append(drawn.add_axes((x / WIDTH, y / total, width / WIDTH, PLOT / total)))
    return drawn, grid


def spectra_of(scheme: Rotary, model: ModelConfig, trained: int, scalings: Sequence[str]) -> list[list[Spectrum]]:
    """The spectra under those scalings that change anything; without any, the unscaled one alone; none of pairs that
    all stand still."""
    if not scheme.frequencies(model.head_width).any():
        return []
    found = [numbers.spectra(scheme, name, model, trained) for name in scalings if name != "none"]
    return [one for one in found if numbers.changes(one)] or [numbers.spectra(scheme, "none", model, trained)]


def scheme_figures(study: Study) -> tuple[list[Figure], list[str]]:
    """The figures of the schemes that a study trains, from its configurations, and what is not in them.

    No checkpoint is read. Rotary schemes stand under the scalings that the study evaluates, for texts as long as the
    longest that it evaluates.
    """
    panels: dict[PositionScheme, list[Panel]] = {}
    spectra: dict[str, list[list[Spectrum]]] = {}
    learned: list[str] = []
    without: list[str] = []
    refused: list[str] = []
    notes: list[str] = []
    lengths = [row.length for point in study.points for item in point.run.evaluations for row in item.rows]
    models = _models(study, notes)
    trained = models[0][1] if models else 0
    length = min(max([2, trained, *lengths]), numbers.LONGEST)
    scalings = _evaluated_scalings(study)
    for model, own_length in models:
        for scheme in model.schemes():
            title = numbers.title_of(scheme)
            if scheme in panels or title in [*learned, *without, *refused]:
                continue
            if numbers.quantity(scheme) is None:
                without.append(title)
            elif numbers.is_learned(scheme):
                learned.append(title)
            elif own_length == trained:
                try:
                    own = min(length, scheme.maximum_length() or length)
                    panels[scheme] = panels_of(scheme, title, model, trained, own, scalings, all_=False)
                    if isinstance(scheme, Rotary):
                        spectra.setdefault(title, spectra_of(scheme, model, trained, scalings))
                except InvalidInput as error:
                    notes.append(clean(f"{title}: not drawn ({error})"))
                    refused.append(title)
    if learned:
        notes.append(
            f"Learned, so drawn from a checkpoint by python -m experiments.pictures --run RUN: {listing(learned)}"
        )
    if without:
        notes.append(f"Without a curve, as what they do goes by the text or not by distance: {listing(without)}")
    shown = tuple(panel for some in panels.values() for panel in some)
    return draw(Schemes(shown, spectra, trained)), notes


def _models(study: Study, notes: list[str]) -> list[tuple[ModelConfig, int]]:
    """The model of every point that says what it is, and the length it is trained at."""
    found = []
    for point in study.points:
        said, train = point.run.config.get("model"), point.run.config.get("train")
        trained = train.get("length") if isinstance(train, dict) else None
        if not isinstance(said, dict) or not isinstance(trained, int) or trained < 2:
            continue
        try:
            found.append((fill_lengths(from_config_dict(ModelConfig, said, "model"), trained), trained))
        except InvalidInput as error:
            notes.append(clean(f"{point.label}: not drawn, as its configuration cannot be read ({error})"))
    return found


def _evaluated_scalings(study: Study) -> list[str]:
    """The scalings that the study reads a checkpoint under, in the order of the registry."""
    named = {
        item.override.get("model.position.scaling.name") for point in study.points for item in point.run.evaluations
    }
    return [name for name in Scaling.registry if name in named and name != "none"]

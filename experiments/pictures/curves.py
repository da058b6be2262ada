"""What positional schemes do to attention, in numbers asked of the schemes themselves, never of a second formula.

A curve is what the last token of a text sees: one query, and a key at every distance from it. Under a scheme whose
rule depends on the length, or on positions beside distances, it is that of a text of exactly this length.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from models.attention import AttentionRule, Full
from models.config import ModelConfig
from models.errors import InvalidInput, require
from models.positions import PositionScheme, Rotary, Scaling, Tile, Tokens
from models.positions.index import Identity, Index
from models.positions.scaling import NoScaling
from models.positions.scaling.rule import turns
from models.transformer import unroll_parameters
from train.config import fill_lengths

Array = jax.Array

BIAS, SCORE, SIMILARITY = "bias", "score", "similarity"
FACTORS = (2, 4, 8, 16)
PER_OCTAVE = 24
LONGEST = 2**20


@dataclass(frozen=True)
class Curve:
    """One scheme against distance. layer: counted from 1 where its numbers are those of a checkpoint's layer.

    quantity: "bias", what is added to logits, by head; "score", the logit of equal unit vectors, the same in all heads;
      "similarity", the cosine of the angle between what two positions add to the embeddings.
    distance_N: in tokens, ascending from 0. value_HxN: float32, one row a head, or one row for all.
    """

    title: str
    quantity: str
    layer: int | None
    distance_N: np.ndarray
    value_HxN: np.ndarray


class Spectrum(NamedTuple):
    """Rotary pairs under one rule at one factor of the training length, from the highest frequency to the lowest.

    wavelength_P: tokens a turn, infinite for a pair that stands still. trained_turns_P: of the pair as it was trained,
    over the training length. turns_P: of the pair under the rule, over factor times the training length.
    """

    title: str
    factor: int
    wavelength_P: np.ndarray
    trained_turns_P: np.ndarray
    turns_P: np.ndarray

    def unseen(self) -> int:
        """How many pairs reach angles that training never showed: beyond its own, and that less than a full turn."""
        return int(((self.trained_turns_P < 1) & (self.turns_P > self.trained_turns_P * (1 + 1e-6))).sum())


def distances(length: int) -> np.ndarray:
    """0, and distances up to length - 1 that are PER_OCTAVE to a doubling, or all where these are fewer; int64."""
    octaves = math.log2(max(length - 1, 1))
    steps = np.arange(math.floor(octaves * PER_OCTAVE) + 1) / PER_OCTAVE
    return np.unique([0, *np.round(2.0**steps).astype(np.int64), length - 1])


@functools.cache
def quantity(scheme: PositionScheme) -> str | None:
    """Which curve there is of a scheme; None where what it does goes by the text, or not by distance at all."""
    if scheme.accumulates() or scheme.feature_shapes(1):
        return None
    if _has(scheme, "rotate") or _has(scheme, "score"):
        return SCORE
    if _has(scheme, "change_logits"):
        return None if _goes_by_content(scheme) else BIAS
    return SIMILARITY if _has(scheme, "embed") else None


def is_learned(scheme: PositionScheme) -> bool:
    """Whether a curve needs the parameters of a checkpoint."""
    return bool(scheme.layer_parameters(1, 2)) or _learns_an_embedding(scheme)


def fixed_schemes() -> list[str]:
    """Names of the registered schemes that have a curve by their configuration alone."""
    schemes = {name: cls() for name, cls in PositionScheme.registry.items()}
    return sorted(name for name, scheme in schemes.items() if quantity(scheme) and not is_learned(scheme))


def _has(scheme: PositionScheme, hook: str) -> bool:
    return getattr(type(scheme), hook) is not getattr(PositionScheme, hook)


def _learns_an_embedding(scheme: PositionScheme) -> bool:
    try:
        return bool(scheme.embedding_parameters(2))
    except InvalidInput:  # of a table whose length is still unknown
        return True


def _goes_by_content(scheme: PositionScheme) -> bool:
    """Whether the change of logits depends on what the vectors hold."""
    parameters = {name: jnp.ones(spec.shape) for name, spec in scheme.layer_parameters(1, 2).items()}
    plain, where = dataclasses.replace(scheme, index=Identity()), _tokens(np.arange(2))

    def change(size: float) -> Array:
        x_BxHxLxK = jnp.full((1, 1, 2, 2), size)
        return plain.change_logits(parameters, jnp.zeros((1, 1, 2, 2)), Tile(x_BxHxLxK, x_BxHxLxK, where, where))

    return not np.allclose(change(0.0), change(1.0), atol=1e-5)


def _tokens(position_L: np.ndarray) -> Tokens:
    position = jnp.asarray(position_L, jnp.int32)[None]
    return Tokens(position, jnp.zeros_like(position))


def curve(
    scheme: PositionScheme,
    title: str,
    model: ModelConfig,
    length: int,
    parameters: Mapping[str, Array] | None = None,
    layer: int | None = None,
) -> Curve:
    """The curve of a scheme in a `model` of whose width and heads it makes use, in a text of `length` tokens.

    parameters: of the embedding under "similarity", of one layer otherwise; none where nothing is learned.
    Raises InvalidInput where the scheme has no curve, or is undefined at this length.
    """
    require(2 <= length <= LONGEST, "--length", length, f"from 2 to {LONGEST} tokens")
    what = quantity(scheme)
    if what is None:
        allowed = "one of " + ", ".join(fixed_schemes()) + ", or by --run one that learns its curve"
        raise InvalidInput(
            f"position.name = {scheme.name!r} has no curve: what it does goes by the text, or not by distance; "
            f"a scheme that has one is {allowed}"
        )
    limit = scheme.maximum_length()
    require(limit is None or length <= limit, "--length", length, f"at most {limit}, where position.name ends")
    # Numbers of this size are no work for an accelerator, which another process may be using.
    with jax.default_device("cpu"):
        learned = dict(parameters or {})
        if what == SIMILARITY:
            value_HxL = _similarity(scheme, learned, model.width, length)
        else:
            heads = model.heads if what == BIAS else 1
            value_HxL = _logits(scheme, learned, heads, model.head_width, float(what == SCORE), length)
    at = distances(length)
    return Curve(title, what, layer, at, np.asarray(value_HxL)[:, at])


@functools.partial(jax.jit, static_argnums=(0, 2, 3, 4, 5))
def _logits(scheme: PositionScheme, parameters: dict, heads: int, size: int, norm: float, length: int) -> Array:
    """Logits [H, length] by distance, of the last token's query for every key, all the same vector of this norm."""
    rule = AttentionRule(scheme, Full())
    query, key = _tokens(np.array([length - 1])), _tokens(np.arange(length))

    def rotated(tokens: Tokens, copies: int) -> Array:
        x_BxLxHxK = jnp.full((1, tokens.position.shape[1], copies, size), norm / math.sqrt(size), jnp.float32)
        return jnp.swapaxes(scheme.rotate(x_BxLxHxK, scheme.place(tokens)), 1, 2)

    seen_BxQxT = jnp.ones((1, 1, length), bool)
    logits, _ = rule.logits(parameters, rotated(query, heads), rotated(key, 1), query, key, seen_BxQxT, None)
    return logits[0, :, 0, ::-1]


def _similarity(scheme: PositionScheme, parameters: dict, width: int, length: int) -> Array:
    """Cosines [1, length] by distance between what the last position and each one before add to the embeddings."""
    added = scheme.embed(parameters, scheme.place(_tokens(np.arange(length))), width)
    assert added is not None
    unit_LxD = added[0] / jnp.linalg.norm(added[0], axis=-1, keepdims=True)
    return (unit_LxD @ unit_LxD[-1])[None, ::-1]


def learned_curves(model: ModelConfig, parameters: Mapping[str, Any], length: int) -> Iterator[Curve]:
    """The curves of every scheme of a model that has any: by layer where a layer learns, else one for all."""
    unrolled = unroll_parameters(model, dict(parameters))
    done = set()
    for index in range(model.layers):
        scheme = model.layer_position(index)
        specs = scheme.layer_parameters(model.heads, model.head_width)
        if quantity(scheme) is None or (not specs and scheme in done):
            continue
        done.add(scheme)
        name = title_of(scheme)
        if specs:
            unit, place = divmod(index, len(model.pattern))
            unit_name = f"unit_{unit}" if unit < model.layers // len(model.pattern) else "last_unit"
            held = unrolled[unit_name][f"layer_{place}"]["attention"]
            learned = {key: held[f"position_{key}"] for key in specs}
            yield curve(scheme, name, model, length, learned, index + 1)
        else:
            embedding = scheme.embedding_parameters(model.width)
            learned = {key: unrolled[f"position_{scheme.name}_{key}"] for key in embedding}
            yield curve(scheme, name, model, length, learned)


def title_of(scheme: PositionScheme) -> str:
    """The scheme's name, with its scaling and index transform where it has any."""
    parts = [scheme.name]
    if isinstance(scheme, Rotary) and not isinstance(scheme.scaling, NoScaling):
        parts.append(scheme.scaling.name)
    if not isinstance(scheme.index, Identity):
        parts.append(scheme.index.name)
    return " · ".join(parts)


def filled(scheme: PositionScheme, model: ModelConfig, trained: int) -> PositionScheme:
    """The scheme with the length trained at, in tokens, wherever it is to be filled in."""
    return fill_lengths(model.replace(position=scheme, pattern=(type(model.pattern[0])(),)), trained).position


def scaled(scheme: Rotary, name: str, factor: float, model: ModelConfig, trained: int) -> Rotary:
    """The scheme under the scaling of this name, at `factor` times the training length; index as it is."""
    rule = Scaling.registry[name]
    grows = not rule.depends_on_length and "factor" in {field.name for field in dataclasses.fields(rule)}
    scaling = rule(factor=max(1.0, float(factor))) if grows else rule()
    changed = filled(dataclasses.replace(scheme, scaling=scaling), model, trained)
    assert isinstance(changed, Rotary)
    return changed


def transformed(scheme: PositionScheme, length: int, model: ModelConfig, trained: int) -> list[PositionScheme]:
    """The scheme under every index transform that fits it, with that one's defaults; not those that draw positions."""
    found = []
    for _, cls in Index.registry.items():
        if cls is Identity or cls.draws:
            continue
        grows = "factor" in {field.name for field in dataclasses.fields(cls)}
        changed = dataclasses.replace(scheme, index=cls(factor=max(1.0, length / trained)) if grows else cls())
        try:
            changed.check_index()
        except InvalidInput:
            continue
        found.append(filled(changed, model, trained))
    return found


def spectra(scheme: Rotary, name: str, model: ModelConfig, trained: int) -> list[Spectrum]:
    """The spectrum under the scaling of this name at every one of FACTORS, beside the unscaled one as trained."""
    plain_P = scaled(scheme, "none", 1, model, trained).frequencies(model.head_width)
    found = []
    for factor in FACTORS:
        rule = scaled(scheme, name, factor, model, trained)
        found.append(_spectrum(name, factor, plain_P, rule.frequencies(model.head_width, factor * trained), trained))
    return found


def changes(found: list[Spectrum]) -> bool:
    """Whether a scaling does anything; LongRoPE does not until its lists are given."""
    return any(not np.allclose(one.turns_P, one.factor * one.trained_turns_P, rtol=1e-9) for one in found)


def _spectrum(title: str, factor: int, trained_P: np.ndarray, frequency_P: np.ndarray, trained: int) -> Spectrum:
    with np.errstate(divide="ignore"):
        wavelength_P = 2 * math.pi / frequency_P
    return Spectrum(title, factor, wavelength_P, turns(trained_P, trained), turns(frequency_P, factor * trained))

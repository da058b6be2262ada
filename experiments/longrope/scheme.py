"""Rotary positions under LongRoPE whose factors are arrays, so that one compiled program scores every candidate."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.longrope.evolution import Candidate
from models.config import ModelConfig
from models.errors import InvalidInput
from models.positions.rotary import Rotary
from models.positions.scaling import LongRoPE, NoScaling, Scaling
from models.positions.scaling.rule import known_length, plain_frequencies
from models.positions.scheme import Array, ParameterSpec, Tile
from models.transformer import init_parameters

FACTORS, UNSCALED = "long_factor", "unscaled_tokens"


@dataclass(frozen=True)
class SearchedRotary(Rotary):
    """Rotary positions under `scaling`, a LongRoPE whose long factors and unscaled tokens come as parameters."""

    def layer_parameters(self, heads: int, head_size: int) -> dict[str, ParameterSpec]:
        """long_factor [width/2], unscaled_tokens []: numbers that are set, never trained."""
        ones, zeros = jax.nn.initializers.ones, jax.nn.initializers.zeros
        return {
            FACTORS: ParameterSpec((self.width(head_size) // 2,), ones, (None,)),
            UNSCALED: ParameterSpec((), zeros, ()),
        }

    def score(self, parameters: dict[str, Array], tile: Tile) -> Array:
        rule = _ByArrays(
            factor=self.scaling.factor,  # type: ignore[attr-defined]
            original_length=self.scaling.original_length,  # type: ignore[attr-defined]
            factors=parameters[FACTORS],
            unscaled=parameters[UNSCALED],
        )
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(Rotary)}
        return Rotary(**fields | {"scaling": rule}).score({}, tile)


@dataclass(frozen=True, eq=False, kw_only=True)
class _ByArrays(LongRoPE):
    """LongRoPE whose long factors are an array; two of them are never equal, as nothing says what is in arrays."""

    factors: Array
    unscaled: Array

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def differs_by_token(self) -> bool:
        return True

    def frequencies_at(self, base: float, width: int, length: Array) -> Array:
        plain = jnp.asarray(plain_frequencies(base, width), jnp.float32)
        return jnp.where((length > known_length(self.original_length))[..., None], plain / self.factors, plain)

    def frequencies_of(self, base: float, width: int, position: Array, frequencies: Array) -> Array:
        plain = jnp.asarray(plain_frequencies(base, width), jnp.float32)
        return jnp.where(position[..., None] < self.unscaled, plain, frequencies)


def searchable(model: ModelConfig) -> Rotary:
    """The rotary scheme that a search is for. Raises InvalidInput where the model has none that is plain, or where its
    layer pattern has rotary schemes of its own, which one list would not fit."""
    scheme = model.position
    if not (isinstance(scheme, Rotary) and isinstance(scheme.scaling, NoScaling) and scheme in model.schemes()):
        scaling = f" under {scheme.scaling.name!r}" if isinstance(scheme, Rotary) else ""
        raise InvalidInput(f"model.position = {scheme.name!r}{scaling}: the search is for rotary positions, unscaled")
    if any(isinstance(layer.position, Rotary) for layer in model.pattern):
        raise InvalidInput("model.pattern has rotary positions of its own: the search is for those of model.position")
    return scheme


def with_candidates(model: ModelConfig, factor: float, original_length: int) -> ModelConfig:
    """The model whose parameters hold the candidate (see `holding`), for a context of `factor` times the original."""
    scheme = searchable(model)
    fields = {field.name: getattr(scheme, field.name) for field in dataclasses.fields(Rotary)}
    rule = LongRoPE(factor=factor, original_length=original_length)
    return model.replace(position=SearchedRotary(**fields | {"scaling": rule}))


def holding(model: ModelConfig, parameters: dict[str, Any], candidate: Candidate) -> dict[str, Any]:
    """A checkpoint's parameters and in each layer the candidate, as a model of `with_candidates` asks for them."""
    held = dict(jax.tree_util.tree_leaves_with_path(parameters))
    values: dict[str, Any] = {
        f"position_{FACTORS}": np.asarray(candidate.factors, np.float32),
        f"position_{UNSCALED}": np.float32(candidate.unscaled_tokens),
    }

    def value(path: Any, asked: Any) -> Array:
        name = path[-1].key
        return held[path] if name not in values else jnp.broadcast_to(values[name], asked.shape)

    shapes = nn.meta.unbox(jax.eval_shape(lambda: init_parameters(model, 0)))
    return jax.tree_util.tree_map_with_path(value, shapes)


def start_candidates(scheme: Rotary, head_size: int, factor: float, original_length: int) -> dict[str, Candidate]:
    """What the search begins with, by the name of the rule whose frequencies it has: PI, NTK-aware and YaRN."""
    width = scheme.width(head_size)
    plain = plain_frequencies(scheme.base, width)
    candidates = {}
    for name in ("linear", "ntk", "yarn"):
        given: dict[str, Any] = {"factor": factor}
        if name == "yarn":
            given["original_length"] = original_length
        factors = plain / Scaling.registry[name](**given).frequencies(scheme.base, width)
        candidates[name] = Candidate(tuple(float(one) for one in np.maximum.accumulate(factors)))
    return candidates

"""Temperatures: what each query is multiplied by, beside 1/√head_size, and so its scores, before any bias.

All that a scheme makes of the query has the factor too: CoPE's gates and its `q·e`, Shaw's `q·a`, DeBERTa's `q·Kr`.
What it makes of keys or of positions alone has not: DeBERTa's `k·Qr`, biases, forget gates.

Softmax over more keys is flatter. A factor that grows with the number of visible keys, or with how far the context is
extended, keeps attention about as sharp as it was trained.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from models.errors import require
from models.positions.original_length import filled_length, require_original_length
from models.positions.scaling.rule import require_factor
from models.positions.scheme import Array, ParameterSpec
from models.registry import Registry


def known_length(original_length: int | None) -> int:
    """The original length of a temperature, in tokens. Raises InvalidInput while it is None."""
    return filled_length("temperature.original_length", original_length)


def log_visible(position_BxL: Array) -> Array:
    """ln(m + 1), float32 [B or 1, L, 1]: of how many tokens a query at position m has in its document, itself included.

    Under a span that hides some of them it still counts them all.
    """
    return jnp.log1p(position_BxL.astype(jnp.float32))[:, :, None]


@dataclass(frozen=True)
class Temperature:
    """Base of the family.

    An alternative that refers to the length trained at has a field `original_length`, in tokens; None stands for that
    length, to be filled in before use: using it unfilled raises InvalidInput.
    """

    registry: ClassVar[Registry] = Registry("temperature.name")
    name: ClassVar[str]

    def parameters(self, heads: int) -> dict[str, ParameterSpec]:
        """Learned numbers of one layer."""
        return {}

    def scale(self, parameters: dict[str, Array], position_BxL: Array) -> Array | None:
        """What the scores of queries at these positions are multiplied by, float32 [B or 1, L, 1] or, where heads
        differ, [B or 1, L, H]; None for 1."""
        raise NotImplementedError


@Temperature.registry.register("none")
@dataclass(frozen=True)
class NoTemperature(Temperature):
    """1: scores as they are."""

    def scale(self, parameters: dict[str, Array], position_BxL: Array) -> None:
        return None


@Temperature.registry.register("constant")
@dataclass(frozen=True)
class Constant(Temperature):
    """`value` for every query of every head; the same at any length."""

    value: float = 1.0

    def __post_init__(self):
        require(math.isfinite(self.value) and self.value > 0, "value", self.value, "a finite number above 0")

    def scale(self, parameters: dict[str, Array], position_BxL: Array) -> Array:
        return jnp.full((*position_BxL.shape, 1), self.value, jnp.float32)


@Temperature.registry.register("yarn")
@dataclass(frozen=True)
class YaRNTemperature(Temperature):
    """`(0.1 · ln s + 1)²` for a context extended s = `factor` times.

    The scaling rule "yarn" of rotary positions already has this factor, in its cosines and sines; here it is for use
    with another rule, or where only a part of each head is rotated. Source: Peng et al. (2023), "YaRN", section 3.4.
    """

    factor: float = 1.0

    def __post_init__(self):
        require_factor(self.factor)

    def scale(self, parameters: dict[str, Array], position_BxL: Array) -> Array:
        return jnp.full((*position_BxL.shape, 1), (0.1 * math.log(self.factor) + 1) ** 2, jnp.float32)


@Temperature.registry.register("log_n")
@dataclass(frozen=True)
class LogN(Temperature):
    """`max(1, ln(m + 1) / ln L)` for a query at position m and the original length L, in tokens: 1 within it, then
    growing so that the entropy of attention about stays.

    Source: Su (2021), "Attention scaling from the invariance of entropy", and Qwen's LogN attention (2023), which takes
    the maximum with 1.
    """

    original_length: int | None = None

    def __post_init__(self):
        require_original_length(self.original_length, least=2)  # its logarithm is above 0

    def scale(self, parameters: dict[str, Array], position_BxL: Array) -> Array:
        """Raises InvalidInput while `original_length` is None."""
        return jnp.maximum(1.0, log_visible(position_BxL) / math.log(known_length(self.original_length)))


@Temperature.registry.register("scalable_softmax")
@dataclass(frozen=True)
class ScalableSoftmax(Temperature):
    """`s_h · ln(m + 1)` for a query at position m, s_h learned for each head of each layer (SSMax).

    s_h starts at 1 over the mean of ln 1 … ln L, for the original length L in tokens: then the mean factor of a text of
    that length is 1, and a model that was trained without it is disturbed least (L = 1024 gives 0.168). The first
    token's factor is 0, which changes nothing where it has but itself to look at; beside the sink of mixer.sink =
    "learned", or later keys under the span "prefix", its scores are all 0. Beyond L the factor keeps growing.
    Source: Nakanishi (2025), "Scalable-Softmax Is Superior for Attention", without the bias parameter that the paper
    finds to hurt at greater lengths.
    """

    original_length: int | None = None

    def __post_init__(self):
        require_original_length(self.original_length, least=2)  # its logarithm is above 0

    def parameters(self, heads: int) -> dict[str, ParameterSpec]:
        """s [heads]. Raises InvalidInput while `original_length` is None."""
        length = known_length(self.original_length)
        initial = length / math.lgamma(length + 1)
        return {"s": ParameterSpec((heads,), jax.nn.initializers.constant(initial), ("heads",))}

    def scale(self, parameters: dict[str, Array], position_BxL: Array) -> Array:
        return log_visible(position_BxL) * parameters["s"].astype(jnp.float32)


@Temperature.registry.register("llama4")
@dataclass(frozen=True)
class Llama4Temperature(Temperature):
    """`1 + strength · ln(1 + ⌊(m + 1) / floor_length⌋)` for a query at position m: 1 below `floor_length` tokens, then
    up in steps of that length.

    Llama 4 has it only on its layers without positions. Source: Llama 4 as in transformers, where the fields are named
    attn_scale and floor_scale.
    """

    strength: float = 0.1
    floor_length: int = 8192

    def __post_init__(self):
        require(math.isfinite(self.strength) and self.strength >= 0, "strength", self.strength, "at least 0 and finite")
        require(self.floor_length >= 1, "floor_length", self.floor_length, "at least 1")

    def scale(self, parameters: dict[str, Array], position_BxL: Array) -> Array:
        steps_BxL = (position_BxL + 1) // self.floor_length
        return 1 + self.strength * jnp.log1p(steps_BxL.astype(jnp.float32))[:, :, None]


@Temperature.registry.register("drope")
@dataclass(frozen=True)
class DroPETemperature(Temperature):
    """`1 + c · ln s` for a context extended s = `factor` times, in a model whose positions were dropped after training.

    c: 0.412 for the paper's model trained from the start, 0.103 for its SmolLM, each found on held-out text.
    Source: Gelberg et al. (2025), "Extending the Context of Pretrained LLMs by Dropping Their Positional Embeddings",
    section 5 and appendix C.
    """

    factor: float = 1.0
    c: float = 0.412

    def __post_init__(self):
        require_factor(self.factor)
        require(math.isfinite(self.c) and self.c >= 0, "c", self.c, "a finite number of at least 0")

    def scale(self, parameters: dict[str, Array], position_BxL: Array) -> Array:
        return jnp.full((*position_BxL.shape, 1), 1 + self.c * math.log(self.factor), jnp.float32)

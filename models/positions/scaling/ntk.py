"""Rules that change the base, or grow from pair to pair as such a change does: high frequencies stay almost as they
are, the lowest is divided by the whole factor.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from models.errors import require
from models.positions.original_length import require_original_length
from models.positions.scaling.rule import (
    Scaling,
    known_length,
    plain_frequencies,
    require_factor,
)


def stretch_exponents(width: int) -> np.ndarray:
    """`2i/(width-2)`, float64 [width/2]: the base `b·s^(width/(width-2))` gives the frequencies `θ_i · s^-exponent_i`.

    Written so that s = 1 leaves the frequencies untouched to the last bit. (A single pair is the highest frequency.)
    """
    return np.arange(0, width, 2) / max(width - 2, 1)


@Scaling.registry.register("ntk")
@dataclass(frozen=True)
class NTKAware(Scaling):
    """The base becomes `base · factor^(width/(width-2))`.

    Source: bloc97 (2023), "NTK-Aware Scaled RoPE"; Peng et al. (2023), "YaRN", section 3.1.
    """

    factor: float = 1.0

    def __post_init__(self):
        require_factor(self.factor)

    def frequencies(self, base: float, width: int) -> np.ndarray:
        return plain_frequencies(base, width) * self.factor ** -stretch_exponents(width)


@Scaling.registry.register("fixed_ntk")
@dataclass(frozen=True)
class FixedNTK(Scaling):
    """The base becomes `base · factor`, and every frequency is then divided by `factor^(2/width)`: in all,
    `θ_i · factor^(-2(i+1)/width)`. NTK-aware scaling that asks a share of the highest frequency too.

    Source: Su (2023), "RoPE as a β-ary encoding, continued" (Transformer series, part 11), where it is NTK-RoPE-fixed.
    """

    factor: float = 1.0

    def __post_init__(self):
        require_factor(self.factor)

    def frequencies(self, base: float, width: int) -> np.ndarray:
        return plain_frequencies(base, width) * self.factor ** -(np.arange(2, width + 2, 2) / width)


@Scaling.registry.register("mixed_ntk")
@dataclass(frozen=True)
class MixedNTK(Scaling):
    """`θ_i · exp(-a·(i+1)^exponent)` with `a = ln(factor) / (width/2)^exponent`: the lowest frequency is divided by
    `factor`, the others by less.

    exponent: 1 is fixed NTK, 0 is position interpolation; 0.625 is the article's choice for a model that is not tuned.
    Source: Su (2023), "RoPE as a β-ary encoding, continued" (Transformer series, part 11), where it is NTK-RoPE-mixed.
    """

    factor: float = 1.0
    exponent: float = 0.625

    def __post_init__(self):
        require_factor(self.factor)
        require(0 <= self.exponent <= 1, "exponent", self.exponent, "from 0 to 1")

    def frequencies(self, base: float, width: int) -> np.ndarray:
        share = np.arange(2, width + 2, 2) / width
        return plain_frequencies(base, width) * self.factor ** -(share**self.exponent)


@Scaling.registry.register("dynamic_ntk")
@dataclass(frozen=True)
class DynamicNTK(Scaling):
    """NTK-aware at the factor which the current length l asks for: `f·l/L - (f-1)`, with l at least the original L.

    Every query is rotated at the length it has itself, L for the first L tokens, then `l = query position + 1` rounded
    up to a multiple of `round_to`, and so are the keys it looks at. That is what generation computes from a cache of
    unrotated keys, one token at a time. So a logit does not depend on how many tokens follow it, and decoding equals
    prefilling at any depth. (With one length for a whole window, as a single pass over a long text is often run, and
    f = 1, the rule is just `ntk` at the factor length / L.)

    factor: f; 1 grows the base by exactly what the length asks for, larger values by more. Up to the original length
    the rule is plain RoPE whatever f.
    round_to: queries that share a length share their keys' rotation, and cost what plain RoPE costs; with 1 each has a
    length of its own, and a prefill costs tens of times as much. Multiples of it are exact.
    Source: Peng et al. (2023), "YaRN", section 3.3; f from the implementations.
    """

    depends_on_length: ClassVar[bool] = True

    factor: float = 1.0
    original_length: int | None = None
    round_to: int = 64

    def __post_init__(self):
        require_factor(self.factor)
        require_original_length(self.original_length)
        require(self.round_to >= 1, "round_to", self.round_to, "at least 1")

    def current_length(self, position: jax.Array) -> jax.Array:
        """The length in tokens that a query at `position` is rotated at, int32 of the same shape."""
        original = known_length(self.original_length)
        rounded = (position // self.round_to + 1) * self.round_to
        return jnp.where(position < original, original, rounded)

    def stretch(self, length: jax.Array | int) -> jax.Array | float:
        """The factor of the NTK-aware rule at a current length in tokens, 1 up to the original length."""
        original = known_length(self.original_length)
        maximum = jnp.maximum if isinstance(length, jax.Array) else max
        return 1.0 + self.factor * (maximum(length, original) - original) / original

    def at_length(self, length: int) -> Scaling:
        return NTKAware(factor=float(self.stretch(length)))

    def frequencies_at(self, base: float, width: int, length: jax.Array) -> jax.Array:
        logarithm = jnp.log(jnp.asarray(self.stretch(length), jnp.float32))
        plain, exponents = (
            jnp.asarray(x, jnp.float32) for x in (plain_frequencies(base, width), stretch_exponents(width))
        )
        return plain * jnp.exp(-exponents * logarithm[..., None])

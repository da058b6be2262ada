"""Learned penalties per head that grow with the logarithm or with a power of the distance (KERPLE)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from models.positions.scheme import Array, ParameterSpec, PositionScheme, Tile

# Fresh coefficients are drawn from this value on, where the authors' code clips them.
SMALLEST = 0.01


def positive(raw: Array) -> Array:
    """A learned number without bounds as one above 0: `softplus(raw) = ln(1 + e^raw)`, float32, any shape."""
    return jax.nn.softplus(raw.astype(jnp.float32))


def below_two(raw: Array) -> Array:
    """A learned number without bounds as one between 0 and 2: `2 / (1 + e^-raw)`, float32, any shape."""
    return 2 * jax.nn.sigmoid(raw.astype(jnp.float32))


def _uniform(invert: Callable[[Array], Array], highest: float) -> Callable[..., Array]:
    """An initializer of raw numbers whose coefficients are uniform in SMALLEST … highest."""

    def initialize(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
        return invert(jax.random.uniform(key, shape, dtype, SMALLEST, highest))

    return initialize


def _inverse_of_positive(value: Array) -> Array:
    return jnp.log(jnp.expm1(value))


def _inverse_of_below_two(value: Array) -> Array:
    return jnp.log(value / (2 - value))


@dataclass(frozen=True)
class Kerple(PositionScheme):
    """What the two kernels share: subtracting a penalty of the distance from the logits."""

    takes: ClassVar[str] = "distances"

    def penalty(self, parameters: dict[str, Array], distance_Bx1xQxT: Array) -> Array:
        """What is subtracted, float32 [B or 1, H, Q, T], at distances of at least 0, float32 [B or 1, 1, Q, T]."""
        raise NotImplementedError

    def change_logits(self, parameters: dict[str, Array], logits_BxHxQxT: Array, tile: Tile) -> Array:
        """The logits less each head's penalty, float32 [B, H, Q, T]."""
        # Later keys, which nobody sees, count as distance 0: a logarithm of what is negative would spoil gradients.
        distance_BxQxT = jnp.maximum(self.distance(tile), 0).astype(jnp.float32)
        return logits_BxHxQxT - self.penalty(parameters, distance_BxQxT[:, None])


@PositionScheme.registry.register("kerple_log")
@dataclass(frozen=True)
class KerpleLog(Kerple):
    """Subtracts `r1 · ln(1 + r2·Δ)` from the logits, r1 and r2 above 0 and learned for each head of each layer.

    Both are held as numbers without bounds whose softplus they are, so that no step of training makes them negative
    and large ones still learn as fast. They start as in the authors' code, which clips at 0.01: r1 uniform below 2, r2
    uniform below 1. Beyond the training length the penalty keeps growing, ever more slowly; heads of small r1 or r2 see
    far. Source: Chi et al. (2022), "KERPLE", the logarithmic variant, and the authors' code.
    """

    def layer_parameters(self, heads: int, head_size: int) -> dict[str, ParameterSpec]:
        """r1 and r2 before their softplus, each [heads]."""
        return {
            "r1": ParameterSpec((heads,), _uniform(_inverse_of_positive, 2.0), ("heads",)),
            "r2": ParameterSpec((heads,), _uniform(_inverse_of_positive, 1.0), ("heads",)),
        }

    def penalty(self, parameters: dict[str, Array], distance_Bx1xQxT: Array) -> Array:
        r1_Hx1x1, r2_Hx1x1 = (positive(parameters[name])[:, None, None] for name in ("r1", "r2"))
        return r1_Hx1x1 * jnp.log1p(r2_Hx1x1 * distance_Bx1xQxT)


@PositionScheme.registry.register("kerple_power")
@dataclass(frozen=True)
class KerplePower(Kerple):
    """Subtracts `r1 · Δ^r2` from the logits, r1 above 0, r2 between 0 and 2, learned for each head of each layer.

    r1 is held as the number whose softplus it is, r2 as the one whose sigmoid is r2 / 2: beyond 2 the kernel would no
    longer be conditionally positive definite. They start as in the authors' code, which clips at 0.01 and 2: r1 uniform
    below 1, r2 uniform below 2. At r2 = 1 this is ALiBi with learned slopes. Beyond the training length the penalty
    keeps growing, faster than any logarithm.
    Source: Chi et al. (2022), "KERPLE", the power variant, and the authors' code.
    """

    def layer_parameters(self, heads: int, head_size: int) -> dict[str, ParameterSpec]:
        """r1 before its softplus and r2 before its sigmoid, each [heads]."""
        return {
            "r1": ParameterSpec((heads,), _uniform(_inverse_of_positive, 1.0), ("heads",)),
            "r2": ParameterSpec((heads,), _uniform(_inverse_of_below_two, 2 - SMALLEST), ("heads",)),
        }

    def penalty(self, parameters: dict[str, Array], distance_Bx1xQxT: Array) -> Array:
        r1_Hx1x1 = positive(parameters["r1"])[:, None, None]
        r2_Hx1x1 = below_two(parameters["r2"])[:, None, None]
        # The derivative by r2 holds ln Δ, which a distance of 0 must not reach.
        apart = distance_Bx1xQxT > 0
        power = jnp.power(jnp.where(apart, distance_Bx1xQxT, 1.0), r2_Hx1x1)
        return r1_Hx1x1 * jnp.where(apart, power, 0.0)

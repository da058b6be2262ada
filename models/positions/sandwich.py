"""The inner product of two sinusoidal positions as a bias, on a scale of its own for each head (Sandwich)."""

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from models.errors import require
from models.positions.scheme import Array, PositionScheme, Tile

# Distances whose sum of cosines is looked up, in tokens; a quarter of a mebibyte.
TABLE_LENGTH = 2**16
STEP = 512


def frequencies(dimensions: int) -> np.ndarray:
    """`10000^(-2i/dimensions)`, radians per token, float64 [dimensions / 2]."""
    return 10000.0 ** -(np.arange(0, dimensions, 2) / dimensions)


@functools.cache
def table(dimensions: int) -> np.ndarray:
    """`Σ_i cos(Δ · ω_i)` for the distances Δ = 0 … TABLE_LENGTH - 1, summed in float64, float32 [TABLE_LENGTH]."""
    distance, total = np.arange(TABLE_LENGTH), np.zeros(TABLE_LENGTH)
    for frequency in frequencies(dimensions):
        total += np.cos(distance * frequency)
    return total.astype(np.float32)


def sum_of_cosines(distance: Array, dimensions: int) -> Array:
    """`Σ_i cos(Δ · ω_i)`, float32 of the shape of `distance`, one frequency at a time.

    Distances are split into steps of STEP tokens, whose angle less its full turns is known in float64, and a rest: the
    float32 products then stay small. One plain product would be 0.06 radians off at a million tokens.
    """
    frequency = frequencies(dimensions)
    angle_of_step = np.remainder(STEP * frequency + math.pi, 2 * math.pi) - math.pi
    angles = jnp.asarray(np.stack([angle_of_step, frequency], axis=1), jnp.float32)
    steps, rest = (part.astype(jnp.float32) for part in jnp.divmod(distance, STEP))

    def add(i: Array, total: Array) -> Array:
        return total + jnp.cos(steps * angles[i, 0] + rest * angles[i, 1])

    return jax.lax.fori_loop(0, dimensions // 2, add, jnp.zeros_like(steps))


@PositionScheme.registry.register("sandwich")
@dataclass(frozen=True)
class Sandwich(PositionScheme):
    """Adds `Σ_i cos(Δ · 10000^(-2i/d)) / (8h/H)` to the logits of head h = 1 … H, for i = 0 … d/2 - 1.

    Nothing is learned.

    dimensions: d, how many numbers the sinusoidal positions have whose inner product the sum of cosines is. It is
      apart from the model's width. The paper takes 128.
    The sum falls about as the logarithm of the distance does, then wavers near 0: beyond the training length, far keys
    are told apart ever less, and none is shut out. A constant that some implementations subtract changes no weight.
    Source: Chi et al. (2023), "Dissecting Transformer Length Extrapolation via the Lens of Receptive Field Analysis",
    and the code of its appendix.
    """

    takes: ClassVar[str] = "distances"

    dimensions: int = 128

    def __post_init__(self):
        even = self.dimensions >= 2 and self.dimensions % 2 == 0
        require(even, "dimensions", self.dimensions, "an even number of at least 2")

    def change_logits(self, parameters: dict[str, Array], logits_BxHxQxT: Array, tile: Tile) -> Array:
        """The logits plus each head's share of the sum of cosines, float32 [B, H, Q, T]."""
        heads = logits_BxHxQxT.shape[1]
        compression_Hx1x1 = (8 * np.arange(1, heads + 1) / heads).astype(np.float32)[:, None, None]
        return logits_BxHxQxT + self._similarity(self.distance(tile))[:, None] / compression_Hx1x1

    def _similarity(self, distance_BxQxT: Array) -> Array:
        # An inner product of features of the two positions would be a matrix product, but hold neither where distances
        # are remapped nor, in float32, at large positions. All heads share one number per distance, so a look-up is
        # both exact and cheaper; cosines are for fractional distances and for those beyond the table.
        if not jnp.issubdtype(distance_BxQxT.dtype, jnp.integer):
            return sum_of_cosines(distance_BxQxT, self.dimensions)
        return jax.lax.cond(
            jnp.all(jnp.abs(distance_BxQxT) < TABLE_LENGTH),
            lambda distance: jnp.take(table(self.dimensions), jnp.abs(distance), mode="clip"),
            lambda distance: sum_of_cosines(distance, self.dimensions),
            distance_BxQxT,
        )

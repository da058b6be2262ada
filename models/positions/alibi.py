"""A fixed penalty per head, linear in the distance."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from models.positions.scheme import Array, PositionScheme, Tile


def slopes(heads: int) -> np.ndarray:
    """Penalty per token of distance of each head, float32 [heads]: `2^(-8h/heads)` for h = 1 … heads.

    Heads beyond the largest power of two P take every second slope of 2P heads. Source: Press et al. (2022), "Train
    Short, Test Long", section 3, and the authors' code.
    """
    power = 2 ** int(math.log2(heads))
    regular = 2.0 ** (-8.0 * np.arange(1, power + 1) / power)
    between = 2.0 ** (-4.0 * np.arange(1, 2 * power + 1, 2) / power)
    return np.concatenate([regular, between[: heads - power]]).astype(np.float32)


@PositionScheme.registry.register("alibi")
@dataclass(frozen=True)
class ALiBi(PositionScheme):
    """Subtracts `slope_h · distance` from the logits, after their division by √head_size; nothing is learned."""

    takes: ClassVar[str] = "distances"
    one_sided: ClassVar[bool] = True

    def change_logits(self, parameters: dict[str, Array], logits_BxHxQxT: Array, tile: Tile) -> Array:
        """The logits less each head's slope times the distance, float32 [B, H, Q, T]."""
        slope_Hx1x1 = slopes(tile.q_BxHxQxK.shape[1])[:, None, None]
        return logits_BxHxQxT - slope_Hx1x1 * self.distance(tile)[:, None].astype(jnp.float32)

"""Positions that count what the query finds worth counting."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from models.errors import require
from models.positions.scheme import Array, ParameterSpec, PositionScheme, Tile


@PositionScheme.registry.register("cope")
@dataclass(frozen=True)
class CoPE(PositionScheme):
    """Contextual position encoding: logits `q_m·k_n/√head_size + q_m·e[p_mn]`, with contextual positions
    `p_mn = min(Σ_{j = n … m} σ(q_m·k_j/√head_size), max_position)`.

    The sum is over keys that the query sees, itself among them; between integers `q·e[p]` is interpolated linearly. The
    table e belongs to one layer and is shared by its heads, each counting for itself. As in the authors' listing, gates
    take scaled scores, and e meets the query without the division by √head_size; the paper's equations write neither
    factor. A temperature multiplies q wherever it stands, so gates, and with them what is counted, change too. Beyond
    the training length contextual positions grow no further than `max_position`: all that was counted past it is
    equally far. Source: Golovneva et al. (2024), "Contextual Position Encoding: Learning to Count What's Important",
    section 4 and the listing of appendix B.

    max_position: the largest contextual position, p_max (the listing's npos_max - 1).
    """

    one_sided: ClassVar[bool] = True

    max_position: int = 64

    def __post_init__(self):
        require(self.max_position >= 1, "max_position", self.max_position, "at least 1")

    def layer_parameters(self, heads: int, head_size: int) -> dict[str, ParameterSpec]:
        """The table `embedding` of positions 0 … max_position, [max_position + 1, head_size]; zeros at first."""
        shape = (self.max_position + 1, head_size)
        return {"embedding": ParameterSpec(shape, jax.nn.initializers.zeros, (None, "head_size"))}

    def accumulate(self, parameters: dict[str, Array], logits_BxHxQxT: Array, tile: Tile) -> Array:
        """The gate of each key: how much it counts for the query, float32 [B, H, Q, T] between 0 and 1."""
        return jax.nn.sigmoid(logits_BxHxQxT)

    def change_logits(self, parameters: dict[str, Array], logits_BxHxQxT: Array, tile: Tile) -> Array:
        """The logits plus the query's product with the embedding of each key's position, float32 [B, H, Q, T]."""
        q, accumulated = tile.q_BxHxQxK, tile.accumulated_BxHxQxT
        assert accumulated is not None
        unscaled = q * jnp.asarray(math.sqrt(q.shape[-1]), q.dtype)
        table_PxK = parameters["embedding"].astype(q.dtype)
        at_integers_BxHxQxP = jnp.einsum("bhqk,pk->bhqp", unscaled, table_PxK, preferred_element_type=jnp.float32)
        # Up to the next integer; the last one is not left any more.
        steps_BxHxQxP = jnp.diff(at_integers_BxHxQxP, axis=-1, append=at_integers_BxHxQxP[..., -1:])

        position_BxHxQxT = jnp.minimum(accumulated, float(self.max_position))
        below = jax.lax.stop_gradient(jnp.floor(position_BxHxQxT))
        index = below.astype(jnp.int32)
        base = jnp.take_along_axis(at_integers_BxHxQxP, index, axis=-1, mode="clip")
        step = jnp.take_along_axis(steps_BxHxQxP, index, axis=-1, mode="clip")
        return logits_BxHxQxT + base + (position_BxHxQxT - below) * step

"""Learned vectors by clipped distance, added to keys and to values."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from models.errors import require
from models.positions.scheme import Array, ParameterSpec, PositionScheme, Tile, weigh_values


@PositionScheme.registry.register("shaw")
@dataclass(frozen=True)
class Shaw(PositionScheme):
    """A key Δ tokens back is read as `k + a^K[min(Δ, k)]`, its value as `v + a^V[min(Δ, k)]`, k = `max_distance`.

    The logits are `q·(k + a^K)/√head_size`. Both tables belong to one layer and are shared by its heads. Under causal
    attention no distance is negative, so they have k + 1 rows in place of the paper's 2k + 1. Beyond the training
    length all far distances share the last row: order among them is lost, nothing is undefined. Source: Shaw et al.
    (2018), "Self-Attention with Relative Position Representations", equations 3 and 4, sections 3.2 and 3.3.

    max_distance: distance in tokens from which all share the last vector (the paper's base model: 16).
    """

    takes: ClassVar[str] = "whole distances"

    max_distance: int = 16

    def __post_init__(self):
        require(self.max_distance >= 1, "max_distance", self.max_distance, "at least 1")

    def layer_parameters(self, heads: int, head_size: int) -> dict[str, ParameterSpec]:
        """Tables `key` and `value`, each [max_distance + 1, head_size]."""
        table = ParameterSpec((self.max_distance + 1, head_size), jax.nn.initializers.normal(0.02), (None, "head_size"))
        return {"key": table, "value": table}

    def change_logits(self, parameters: dict[str, Array], logits_BxHxQxT: Array, tile: Tile) -> Array:
        """The logits plus the query's product with the vector of each key's distance, float32 [B, H, Q, T]."""
        q = tile.q_BxHxQxK
        table_NxK = parameters["key"].astype(q.dtype)
        by_distance_BxHxQxN = jnp.einsum("bhqk,nk->bhqn", q, table_NxK, preferred_element_type=jnp.float32)
        return logits_BxHxQxT + self._pick(by_distance_BxHxQxN, tile)

    def weigh(self, parameters: dict[str, Array], weights_BxHxQxT: Array, v_BxGxTxK: Array, tile: Tile) -> Array:
        """Weighted values, plus each distance's vector times the weight that all its keys have together."""
        by_distance = jax.ShapeDtypeStruct((*weights_BxHxQxT.shape[:3], self.max_distance + 1), weights_BxHxQxT.dtype)
        # Adding up what goes to each distance is the transpose of picking what each distance has.
        (together_BxHxQxN,) = jax.linear_transpose(lambda x: self._pick(x, tile), by_distance)(weights_BxHxQxT)
        vectors = jnp.einsum("bhqn,nk->bhqk", together_BxHxQxN, parameters["value"].astype(jnp.float32))
        return weigh_values(weights_BxHxQxT, v_BxGxTxK) + vectors

    def _pick(self, by_distance_BxHxQxN: Array, tile: Tile) -> Array:
        """What each pair's distance has, [B, H, Q, T]."""
        row_BxQxT = jnp.clip(self.distance(tile), 0, self.max_distance).astype(jnp.int32)
        return jnp.take_along_axis(by_distance_BxHxQxN, row_BxQxT[:, None], axis=-1, mode="clip")

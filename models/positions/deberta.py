"""Disentangled attention: content looks for positions, and positions for content, beside content for content."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from models.errors import require
from models.positions.scheme import Array, ParameterSpec, PositionScheme, Tile


def log_bucket(relative_position: np.ndarray, buckets: int, max_distance: int) -> np.ndarray:
    """Signed bucket of each relative position, integers of the same shape, not clipped.

    With mid = buckets // 2: the position itself up to ±mid, then `mid + ⌈ln(|r|/mid)/ln((max_distance - 1)/mid) ·
    (mid - 1)⌉` with the sign of r; distance max_distance - 1 falls into bucket 2·mid - 1, farther ones beyond it.
    NumPy, so that the edges do not depend on a device's logarithm. Source: He et al. (2021), "DeBERTa", the authors'
    code of version 2.
    """
    relative_position = np.asarray(relative_position)
    mid = buckets // 2
    far = np.maximum(np.abs(relative_position), mid)
    share = np.log(far / mid) / math.log((max_distance - 1) / mid)
    # A distance exactly on an edge belongs to the bucket below, whichever way its logarithm was rounded.
    logarithmic = mid + np.ceil(share * (mid - 1) - 1e-9).astype(relative_position.dtype)
    near = np.abs(relative_position) <= mid
    return np.where(near, relative_position, np.sign(relative_position) * logarithmic)


@PositionScheme.registry.register("deberta")
@dataclass(frozen=True)
class DeBERTa(PositionScheme):
    """Logits `(q_m·k_n + q_m·Kr[δ] + k_n·Qr[δ])/√(3·head_size)`, δ the bucket of the distance m - n.

    A temperature multiplies the two products with q, and not k_n·Qr[δ].

    Kr and Qr are learned per layer and head, one row per bucket: the products of the paper's shared embedding of
    relative positions with each layer's projections, which fold into them. Under causal attention the buckets of
    negative distances do not occur and have no rows; so it does not matter that the paper reads Qr at δ(n, m) and its
    code at δ(m, n): one table is the other with its rows named anew. All distances from `max_distance` on share the
    last row, so nothing is undefined beyond the training length, but order among far keys is lost. Source: He et al.
    (2021), "DeBERTa: Decoding-enhanced BERT with Disentangled Attention", equations 3 and 4, and the authors' code.

    max_distance: k of the paper, in tokens. buckets: of distances, logarithmically wider beyond half of them (version
      2); None gives each distance below max_distance its own (version 1).
    """

    takes: ClassVar[str] = "whole distances"

    max_distance: int = 512
    buckets: int | None = 256

    def __post_init__(self):
        require(self.max_distance >= 2, "max_distance", self.max_distance, "at least 2")
        if self.buckets is not None:
            require(self.buckets >= 4, "buckets", self.buckets, "at least 4, or None for one per distance")
            least = self.buckets // 2 + 1
            require(self.max_distance > least, "max_distance", self.max_distance, f"above {least}: half of the buckets")

    def rows(self) -> np.ndarray:
        """The row of each distance 0 … max_distance, integers [max_distance + 1]."""
        distances = np.arange(self.max_distance + 1)
        if self.buckets is None:
            return np.minimum(distances, self.max_distance - 1)
        return np.minimum(log_bucket(distances, self.buckets, self.max_distance), self.buckets - 1)

    def layer_parameters(self, heads: int, head_size: int) -> dict[str, ParameterSpec]:
        """Tables `key` (Kr) and `query` (Qr), each [rows, heads, head_size]."""
        shape = (int(self.rows().max()) + 1, heads, head_size)
        table = ParameterSpec(shape, jax.nn.initializers.normal(0.02), (None, "heads", "head_size"))
        return {"key": table, "query": table}

    def change_logits(self, parameters: dict[str, Array], logits_BxHxQxT: Array, tile: Tile) -> Array:
        """The logits plus both terms of position, divided by √3, float32 [B, H, Q, T]."""
        q, k = tile.q_BxHxQxK, tile.k_BxGxTxK
        kr_NxHxK, qr_NxHxK = parameters["key"].astype(q.dtype), parameters["query"].astype(k.dtype)
        groups, size = k.shape[1], k.shape[-1]
        qr_NxGxRxK = qr_NxHxK.reshape(len(qr_NxHxK), groups, -1, size)
        to_position_BxHxQxN = jnp.einsum("bhqk,nhk->bhqn", q, kr_NxHxK, preferred_element_type=jnp.float32)
        from_position = jnp.einsum("bgtk,ngrk->bgrtn", k, qr_NxGxRxK, preferred_element_type=jnp.float32)
        from_position_BxHxTxN = from_position.reshape(len(k), -1, *from_position.shape[-2:])

        near_BxQxT = jnp.clip(self.distance(tile), 0, self.max_distance).astype(jnp.int32)
        row_Bx1xQxT = jnp.asarray(self.rows(), jnp.int32)[near_BxQxT][:, None]
        content_to_position = jnp.take_along_axis(to_position_BxHxQxN, row_Bx1xQxT, axis=-1, mode="clip")
        row_Bx1xTxQ = jnp.swapaxes(row_Bx1xQxT, 2, 3)
        position_to_content = jnp.take_along_axis(from_position_BxHxTxN, row_Bx1xTxQ, axis=-1, mode="clip")
        # The queries were divided by √head_size before they came here, the keys were not.
        position_to_content = jnp.swapaxes(position_to_content, 2, 3) / math.sqrt(size)
        return (logits_BxHxQxT + content_to_position + position_to_content) / math.sqrt(3)

"""xPos: rotary positions whose scores decay with distance, each pair at its own rate."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from models.errors import require, require_choice
from models.positions.rotary import LAYOUTS, as_pairs, turn
from models.positions.scaling.rule import plain_frequencies, require_pairs
from models.positions.scheme import Array, PositionScheme, Tile, Tokens, dot_product

# What a query's or key's scale may be at most, as an exponent of e: its square is far from the largest float32.
LARGEST_EXPONENT = 40.0


@PositionScheme.registry.register("xpos")
@dataclass(frozen=True)
class XPos(PositionScheme):
    """Pair i turned as in RoPE, and its part of a score multiplied by `ζ_i^((m-n)/scale_base)`, with m and n the
    positions of query and key and `ζ_i = (2i + gamma·head_size) / ((1 + gamma)·head_size)`, which is below 1.

    The decay is a product of a query's `ζ_i^((m-c)/scale_base)` and a key's `ζ_i^((c-n)/scale_base)` for any c. Under a
    constant c either overflows at long lengths. So keys are cached turned alone, and every tile takes a c of its own,
    for each document the middle of its queries' positions; then a score depends on m - n, a cache stays exact, and
    positions have no limit. Where the queries of a document in a tile lie so far apart that this could overflow (32,000
    tokens, for the published constants), the tile is computed one query at a time. Scales are float32.

    It extrapolates by forgetting: after 2700 tokens half of a head's pairs keep less than a tenth of their score.

    layout: "half_split" or "interleaved" (the paper); they differ by a permutation of columns.
    Source: Sun et al. (2022), "A Length-Extrapolatable Transformer", section 2.2 and algorithm 1; 512 from its code.
    """

    takes: ClassVar[str] = "positions"
    one_sided: ClassVar[bool] = True

    base: float = 10000.0
    layout: str = "half_split"
    gamma: float = 0.4
    scale_base: float = 512.0

    def __post_init__(self):
        require(math.isfinite(self.base) and self.base > 1, "base", self.base, "a finite number above 1")
        require_choice("layout", self.layout, LAYOUTS)
        require(0 < self.gamma < math.inf, "gamma", self.gamma, "a finite number above 0")
        require(0 < self.scale_base < math.inf, "scale_base", self.scale_base, "a finite number above 0")

    def check(self, head_size: int, field: str = "head_size") -> None:
        require_pairs(head_size, field)

    def rotate(self, x_BxLxHxK: Array, position_BxL: Array) -> Array:
        frequencies = plain_frequencies(self.base, x_BxLxHxK.shape[-1]).astype(np.float32)
        angle = position_BxL[:, :, None, None].astype(jnp.float32) * frequencies
        return turn(x_BxLxHxK, jnp.cos(angle), jnp.sin(angle), self.layout)

    def score(self, parameters: dict[str, Array], tile: Tile) -> Array:
        """Scores of a tile, float32 [B, H, Q, T]."""
        _, reach_BxQ = _middle_and_reach(tile.query, tile.query)
        farthest = -self.decay_rates(tile.q_BxHxQxK.shape[-1])[0] * reach_BxQ
        near = jnp.all((farthest <= LARGEST_EXPONENT) | (tile.query.document < 0))
        return jax.lax.cond(near, self._scores_together, self._scores_one_by_one, tile)

    def decay_rates(self, head_size: int) -> np.ndarray:
        """`ln ζ_i / scale_base`, per token, float64 [head_size/2], all negative."""
        twice_index = np.arange(0, head_size, 2)
        return np.log((twice_index + self.gamma * head_size) / ((1 + self.gamma) * head_size)) / self.scale_base

    def _scores_together(self, tile: Tile) -> Array:
        center_BxQ, _ = _middle_and_reach(tile.query, tile.query)
        center_BxT, _ = _middle_and_reach(tile.key, tile.query)
        q = self._decayed(tile.q_BxHxQxK, tile.query.position - center_BxQ)
        k = self._decayed(tile.k_BxGxTxK, center_BxT - tile.key.position)
        return dot_product(tile._replace(q_BxHxQxK=q, k_BxGxTxK=k))

    def _scores_one_by_one(self, tile: Tile) -> Array:
        @jax.checkpoint
        def one(query: tuple[Array, Array, Array]) -> Array:
            q_BxHxK, position_B, document_B = query
            alone = Tokens(position_B[:, None], document_B[:, None])
            return self._scores_together(tile._replace(q_BxHxQxK=q_BxHxK[:, :, None], query=alone))[:, :, 0]

        by_query = jnp.moveaxis(tile.q_BxHxQxK, 2, 0), tile.query.position.T, tile.query.document.T
        return jnp.moveaxis(jax.lax.map(one, by_query), 0, 2)

    def _decayed(self, x_BxHxLxK: Array, offset_BxL: Array) -> Array:
        """Each pair multiplied by `ζ_i^(offset/scale_base)`, in float32; in the dtype of `x`."""
        rates = self.decay_rates(x_BxHxLxK.shape[-1]).astype(np.float32)
        # The bound cuts padding, and keys more than 16,000 tokens ahead, which nobody sees.
        exponent_BxLxP = jnp.minimum(offset_BxL[:, :, None] * rates, LARGEST_EXPONENT)
        scale_BxLxP = jnp.exp(exponent_BxLxP)
        scale_BxLxK = as_pairs(scale_BxLxP, scale_BxLxP, self.layout)
        return (x_BxHxLxK * scale_BxLxK[:, None]).astype(x_BxHxLxK.dtype)


def _middle_and_reach(tokens: Tokens, query: Tokens) -> tuple[Array, Array]:
    """Of each token's document: the middle of its positions among the queries, [B or 1, L], and how far the
    farthest of them is from it. A token whose document no query belongs to is its own middle."""
    same_BxLxQ = tokens.document[:, :, None] == query.document[:, None, :]
    position_Bx1xQ, far = query.position[:, None], jnp.iinfo(jnp.int32).max
    alone_BxL = ~same_BxLxQ.any(axis=-1)
    first_BxL = jnp.where(alone_BxL, tokens.position, jnp.where(same_BxLxQ, position_Bx1xQ, far).min(axis=-1))
    last_BxL = jnp.where(alone_BxL, tokens.position, jnp.where(same_BxLxQ, position_Bx1xQ, -far).max(axis=-1))
    middle_BxL = first_BxL + (last_BxL - first_BxL) // 2
    return middle_BxL, last_BxL - middle_BxL

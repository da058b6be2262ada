"""One attention rule: a positional scheme and a span, as every implementation evaluates them on a tile."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from models.attention.visibility import Visibility
from models.positions.scheme import PositionScheme, Tile, Tokens

Array = jax.Array

# Stands for minus infinity: finite, so that a row which sees nothing gives zeros and not NaN.
MASKED = -1e30


@dataclass(frozen=True)
class AttentionRule:
    """What happens between queries and keys. Static and hashable: part of the compiled program."""

    scheme: PositionScheme
    span: Visibility

    def first_carry(self, rows: tuple[int, ...]) -> Array | None:
        """The carry [B, H, Q] of the newest key tile; None for schemes that accumulate nothing, which have none."""
        return jnp.zeros(rows, jnp.float32) if self.scheme.accumulates() else None

    def logits(
        self,
        parameters: dict[str, Array],
        q_BxHxQxK: Array,
        k_BxGxTxK: Array,
        query: Tokens,
        key: Tokens,
        seen_BxQxT: Array,
        carry_BxHxQ: Array | None,
    ) -> tuple[Array, Array | None]:
        """Logits of a tile before any mask, float32 [B, H, Q, T], and the carry of the next older tile.

        seen: which keys each query sees. carry: what all visible keys of newer tiles accumulated.
        """
        tile = Tile(q_BxHxQxK, k_BxGxTxK, self._indexed(query), self._indexed(key))
        scores_BxHxQxT = self.scheme.score(parameters, tile)
        if carry_BxHxQ is not None:
            added = self.scheme.accumulate(parameters, scores_BxHxQxT, tile)
            from_newest = lax.cumsum(jnp.where(seen_BxQxT[:, None], added, 0.0), axis=3, reverse=True)
            tile = tile._replace(accumulated_BxHxQxT=carry_BxHxQ[..., None] + from_newest)
            carry_BxHxQ = carry_BxHxQ + from_newest[..., 0]
        return self.scheme.change_logits(parameters, scores_BxHxQxT, tile), carry_BxHxQ

    def weigh(
        self, parameters: dict[str, Array], weights_BxHxQxT: Array, v_BxGxTxK: Array, query: Tokens, key: Tokens
    ) -> Array:
        """What a tile adds to each query's output, float32 [B, H, Q, K]."""
        # Vectors and features are withheld: the backward pass takes no gradient with respect to them here.
        none: Any = None
        query, key = (dataclasses.replace(self._indexed(tokens), features={}) for tokens in (query, key))
        return self.scheme.weigh(parameters, weights_BxHxQxT, v_BxGxTxK, Tile(none, none, query, key))

    def _indexed(self, tokens: Tokens) -> Tokens:
        return dataclasses.replace(tokens, position=self.scheme.place(tokens))


def tokens_like(tokens: Tokens, **changes: Any) -> Tokens:
    """`tokens` with changed arrays: no longer known to be contiguous."""
    return dataclasses.replace(tokens, contiguous=False, **changes)

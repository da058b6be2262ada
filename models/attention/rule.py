"""One attention rule: a positional scheme and a span, as every implementation evaluates them on a tile."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from models.attention.visibility import Visibility
from models.positions.scheme import PositionScheme, Tile, Tokens, dot_product

Array = jax.Array

# Stands for minus infinity: finite, so that a row which sees nothing gives zeros and not NaN.
MASKED = -1e30


@dataclass(frozen=True)
class AttentionRule:
    """What happens between queries and keys. Static and hashable: part of the compiled program.

    soft_cap: c of c·tanh(scores/c), before the scheme changes the logits; 0 is off.
    rotary_size: how many of the first numbers of queries and keys the scheme scores, of the others the dot product is
      added; None is all.
    """

    scheme: PositionScheme
    span: Visibility
    soft_cap: float = 0.0
    rotary_size: int | None = None

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
        scores_BxHxQxT = self._scores(parameters, tile)
        if self.soft_cap:
            scores_BxHxQxT = self.soft_cap * jnp.tanh(scores_BxHxQxT / self.soft_cap)
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

    def _scores(self, parameters: dict[str, Array], tile: Tile) -> Array:
        plain = type(self.scheme).score is PositionScheme.score or self.scheme.plain_logits()
        if self.rotary_size is None or plain:
            return self.scheme.score(parameters, tile)
        first, rest = (
            tile._replace(q_BxHxQxK=tile.q_BxHxQxK[..., part], k_BxGxTxK=tile.k_BxGxTxK[..., part])
            for part in (slice(self.rotary_size), slice(self.rotary_size, None))
        )
        return self.scheme.score(parameters, first) + dot_product(rest)

    def _indexed(self, tokens: Tokens) -> Tokens:
        return dataclasses.replace(tokens, position=self.scheme.place(tokens))


def tokens_like(tokens: Tokens, **changes: Any) -> Tokens:
    """`tokens` with changed arrays: no longer known to be contiguous."""
    return dataclasses.replace(tokens, contiguous=False, **changes)

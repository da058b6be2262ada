"""One attention rule: a positional scheme and a span, as every implementation evaluates them on a tile."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

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

    def logits(self, parameters: dict[str, Array], q_BxHxQxK: Array, k_BxGxTxK: Array, query: Tokens, key: Tokens):
        """Logits of a tile before any mask, float32 [B, H, Q, T]."""
        tile = Tile(q_BxHxQxK, k_BxGxTxK, self._indexed(query), self._indexed(key))
        return self.scheme.change_logits(parameters, self.scheme.score(parameters, tile), tile)

    def _indexed(self, tokens: Tokens) -> Tokens:
        return dataclasses.replace(tokens, position=self.scheme.index(tokens.position))


def weigh_values(weights_BxHxQxT: Array, v_BxGxTxK: Array) -> Array:
    """Sums of values weighted per query, float32 [B, H, Q, K]; groups of H/G query heads share a value head."""
    batch, heads, queries, keys = weights_BxHxQxT.shape
    groups, size = v_BxGxTxK.shape[1], v_BxGxTxK.shape[3]
    weights = weights_BxHxQxT.reshape(batch, groups, heads // groups * queries, keys).astype(v_BxGxTxK.dtype)
    summed = jnp.einsum("bgqt,bgtk->bgqk", weights, v_BxGxTxK, preferred_element_type=jnp.float32)
    return summed.reshape(batch, heads, queries, size)


def tokens_like(tokens: Tokens, **changes: Any) -> Tokens:
    """`tokens` with changed arrays: no longer known to be contiguous."""
    return dataclasses.replace(tokens, contiguous=False, **changes)

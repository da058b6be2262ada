"""The entropy of attention: how many keys a query's weights are spread over, on a logarithmic scale."""

import jax
import jax.numpy as jnp
from jax import lax

from models.attention.rule import MASKED, AttentionRule, tokens_like
from models.attention.visibility import visible
from models.positions.scheme import Tokens

Array = jax.Array


def attention_entropy(
    rule: AttentionRule,
    parameters: dict[str, Array],
    q_BxHxLxK: Array,
    k_BxGxSxK: Array,
    query: Tokens,
    key: Tokens,
    tile: int = 128,
) -> Array:
    """`-Σ_n p_n ln p_n` of each query's weights p over the visible keys, in nats, float32 [B, H, L].

    ln(n) where n visible keys get the same weight, 0 where one gets it all and where none is visible. Queries and keys
    are those of `reference_attention`; weights are those among the keys, whatever a sink takes beside them. `tile`
    queries at a time, so memory is linear in L and S.
    """
    length = q_BxHxLxK.shape[2]

    def of_queries(start: Array | int, size: int) -> Array:
        q_tile = lax.dynamic_slice_in_dim(q_BxHxLxK, start, size, 2)
        some = jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, size, 1), tokens_like(query))
        seen_BxQxS = visible(rule.span, some, key)
        carry = rule.first_carry(q_tile.shape[:3])
        logits, _ = rule.logits(parameters, q_tile, k_BxGxSxK, some, key, seen_BxQxS, carry)
        seen = seen_BxQxS[:, None]
        log_weights = jax.nn.log_softmax(jnp.where(seen, logits, MASKED), axis=-1)
        return -jnp.where(seen, jnp.exp(log_weights) * log_weights, 0.0).sum(axis=-1)

    tiles, rest = divmod(length, tile)
    parts = []
    if tiles:
        entropy_IxBxHxQ = lax.map(lambda i: of_queries(i * tile, tile), jnp.arange(tiles))
        parts.append(jnp.moveaxis(entropy_IxBxHxQ, 0, 2).reshape(*q_BxHxLxK.shape[:2], tiles * tile))
    if rest:
        parts.append(of_queries(tiles * tile, rest))
    return jnp.concatenate(parts, axis=2)

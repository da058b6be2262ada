"""Attention as it is defined: all logits at once, O(L²) memory. The measure of every other implementation."""

import jax
import jax.numpy as jnp

from models.attention.rule import MASKED, AttentionRule
from models.attention.visibility import visible
from models.positions.scheme import Tokens

Array = jax.Array


def reference_attention(
    rule: AttentionRule,
    parameters: dict[str, Array],
    q_BxHxLxK: Array,
    k_BxGxSxK: Array,
    v_BxGxSxK: Array,
    query: Tokens,
    key: Tokens,
    sink_H: Array | None = None,
) -> Array:
    """softmax(logits) · v over the visible keys, [B, H, L, V] in the dtype of `v` [B, G, S, V]; zeros where nothing is
    visible.

    Queries are already rotated and divided by √K, keys rotated. Softmax is taken in float32. sink: float32, one more
    logit per head in its denominator, of no key.
    """
    seen_BxLxS = visible(rule.span, query, key)
    carry = rule.first_carry(q_BxHxLxK.shape[:3])
    logits, _ = rule.logits(parameters, q_BxHxLxK, k_BxGxSxK, query, key, seen_BxLxS, carry)
    logits = jnp.where(seen_BxLxS[:, None], logits, MASKED)
    weights = jax.nn.softmax(logits, axis=-1) if sink_H is None else _softmax_with_sink(logits, sink_H)
    sees_any_BxL = seen_BxLxS.any(axis=-1)
    output = rule.weigh(parameters, weights, v_BxGxSxK, query, key) * sees_any_BxL[:, None, :, None]
    return output.astype(v_BxGxSxK.dtype)


def _softmax_with_sink(logits_BxHxLxS: Array, sink_H: Array) -> Array:
    """The weights of keys, float32 [B, H, L, S]: what the sink takes is missing from their sum."""
    sink_BxHxLx1 = jnp.broadcast_to(sink_H[:, None, None], (*logits_BxHxLxS.shape[:3], 1))
    return jax.nn.softmax(jnp.concatenate([logits_BxHxLxS, sink_BxHxLx1], axis=-1), axis=-1)[..., :-1]

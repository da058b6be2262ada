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
) -> Array:
    """softmax(logits) · v over the visible keys, [B, H, L, K] in the dtype of `v`; zeros where nothing is visible.

    Queries are already rotated and divided by √K, keys rotated. Softmax is taken in float32.
    """
    seen_BxLxS = visible(rule.span, query, key)
    carry = rule.first_carry(q_BxHxLxK.shape[:3])
    logits, _ = rule.logits(parameters, q_BxHxLxK, k_BxGxSxK, query, key, seen_BxLxS, carry)
    logits = jnp.where(seen_BxLxS[:, None], logits, MASKED)
    weights = jax.nn.softmax(logits, axis=-1)
    sees_any_BxL = seen_BxLxS.any(axis=-1)
    output = rule.weigh(parameters, weights, v_BxGxSxK, query, key) * sees_any_BxL[:, None, :, None]
    return output.astype(v_BxGxSxK.dtype)

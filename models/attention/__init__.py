"""Attention: one rule (scheme and span), several implementations of the same function, and the choice among them."""

from collections.abc import Callable

import jax

from models.attention.blockwise import Tiles, blockwise_attention
from models.attention.entropy import attention_entropy
from models.attention.fused import fused_attention, why_not_fused
from models.attention.reference import reference_attention
from models.attention.rule import AttentionRule
from models.attention.visibility import Full, Sliding, Visibility, visible
from models.errors import require_choice
from models.positions.scheme import Tokens

Array = jax.Array

IMPLEMENTATIONS: dict[str, Callable[..., Array]] = {
    "reference": reference_attention,
    "blockwise": blockwise_attention,
    "fused": fused_attention,
}
CHOICES = ("auto", *IMPLEMENTATIONS)

# Below this many logits per head, all at once is faster than tile by tile, and the memory does not matter.
FEW_LOGITS = 512 * 512


def attend(
    implementation: str,
    rule: AttentionRule,
    parameters: dict[str, Array],
    q_BxHxLxK: Array,
    k_BxGxSxK: Array,
    v_BxGxSxK: Array,
    query: Tokens,
    key: Tokens,
    sink_H: Array | None = None,
) -> Array:
    """Attention [B, H, L, V] of rotated, scaled queries over rotated keys, by the named implementation.

    `auto`: fused where rule, sink and device allow, else all at once where the logits are few, else blockwise.
    """
    require_choice("attention", implementation, CHOICES)
    if implementation == "auto":
        implementation = _pick(rule, q_BxHxLxK, k_BxGxSxK, query, key, sink_H)
    vectors = (q_BxHxLxK, k_BxGxSxK, v_BxGxSxK)
    return IMPLEMENTATIONS[implementation](rule, parameters, *vectors, query, key, sink_H=sink_H)


def _pick(rule, q_BxHxLxK, k_BxGxSxK, query, key, sink_H) -> str:
    if why_not_fused(rule, q_BxHxLxK, k_BxGxSxK, query, key, sink_H) is None:
        return "fused"
    return "reference" if q_BxHxLxK.shape[2] * k_BxGxSxK.shape[2] <= FEW_LOGITS else "blockwise"


__all__ = [
    "CHOICES",
    "AttentionRule",
    "Full",
    "Sliding",
    "Tiles",
    "Visibility",
    "attend",
    "attention_entropy",
    "blockwise_attention",
    "fused_attention",
    "reference_attention",
    "visible",
]

"""The fused cuDNN kernel behind jax.nn.dot_product_attention, where scheme and device allow it."""

import jax
import jax.numpy as jnp

from models.attention.rule import AttentionRule
from models.attention.visibility import Full, Sliding
from models.errors import InvalidInput
from models.positions.scheme import Tokens

Array = jax.Array


# Compute capabilities from which on cuDNN has the kernel, and takes heads of more than 128.
AMPERE, HOPPER = (8, 0), (9, 0)


def compute_capability() -> tuple[int, ...]:
    """Of the first GPU of this process, whose kind the others are; (0,) of one that is not NVIDIA's."""
    parts = str(getattr(jax.local_devices(backend="gpu")[0], "compute_capability", "")).split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else (0,)


def why_not_fused(
    rule: AttentionRule,
    q_BxHxLxK: Array,
    k_BxGxSxK: Array,
    query: Tokens,
    key: Tokens,
    sink_H: Array | None = None,
) -> str | None:
    """The first reason why the fused kernel cannot compute this attention, or None if it can."""
    size = q_BxHxLxK.shape[-1]
    if jax.default_backend() != "gpu":
        return f"needs a GPU; this is {jax.default_backend()}"
    capability = compute_capability()
    if capability < AMPERE:
        return "needs an NVIDIA GPU of compute capability 8.0 or later"
    if q_BxHxLxK.dtype not in (jnp.bfloat16, jnp.float16):
        return f"needs bfloat16 or float16, not {q_BxHxLxK.dtype}"
    largest = 256 if capability >= HOPPER else 128
    if size > largest or size % 8:
        return f"needs a head size of at most {largest} on this GPU and a multiple of 8, not {size}"
    if not rule.scheme.plain_logits():
        return f"position.name = {rule.scheme.name!r} changes logits"
    if rule.soft_cap:
        return f"mixer.soft_cap = {rule.soft_cap} changes logits"
    if sink_H is not None:
        return "mixer.sink = 'learned' is not known to the kernel"
    if rule.rotary_size is not None:
        return "mixer.name = 'latent' has keys and values of different sizes"
    if not isinstance(rule.span, (Full, Sliding)):
        return f"span.name = {rule.span.name!r} is not known to the kernel"
    if not (query.contiguous and key.contiguous and q_BxHxLxK.shape[2] == k_BxGxSxK.shape[2]):
        return "needs one whole document per row"
    return None


def fused_attention(
    rule: AttentionRule,
    parameters: dict[str, Array],
    q_BxHxLxK: Array,
    k_BxGxSxK: Array,
    v_BxGxSxK: Array,
    query: Tokens,
    key: Tokens,
    sink_H: Array | None = None,
) -> Array:
    """The same function as `reference_attention`, by one kernel. Raises InvalidInput where that is not possible."""
    reason = why_not_fused(rule, q_BxHxLxK, k_BxGxSxK, query, key, sink_H)
    if reason:
        raise InvalidInput(f"attention = 'fused' {reason}")
    # The kernel's window counts keys to the left of the query, and looks ahead unless it is told to be causal.
    window = (rule.span.window - 1, 0) if isinstance(rule.span, Sliding) else None
    output = jax.nn.dot_product_attention(
        *(jnp.swapaxes(x, 1, 2) for x in (q_BxHxLxK, k_BxGxSxK, v_BxGxSxK)),
        scale=1.0,
        is_causal=True,
        local_window_size=window,
        implementation="cudnn",
    )
    return jnp.swapaxes(output, 1, 2)

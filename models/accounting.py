"""Parameters and floating-point operations of a model, counted from its configuration."""

from typing import Any

import jax

from models.config import ModelConfig


def parameter_count(parameters: Any) -> int:
    """How many numbers a parameter tree (abstract or not) holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(parameters))


def training_flops_per_token(config: ModelConfig, length: int) -> float:
    """Floating-point operations of forward and backward per token, matrix products alone.

    6 per weight of every product (the output matrix included, the embedding lookup not), and 12·D·L/2 per layer of
    causal attention at `length` (Kaplan et al. 2020, section 2.1; PaLM, appendix B, halved for the causal triangle).
    """
    size = config.head_width
    attention = config.width * size * 2 * (config.heads + config.key_heads)
    gates = 3 if config.feed_forward.name in ("swiglu", "geglu") else 2
    feed_forward = gates * config.width * config.feed_forward_width
    weights = config.layers * (attention + feed_forward) + config.vocabulary * config.width
    return 6 * weights + 6 * config.layers * config.heads * size * length

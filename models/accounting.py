"""Parameters and floating-point operations of a model, counted from its configuration."""

from collections import Counter
from typing import Any

import jax
import numpy as np

from models import feed_forward
from models.attention import Visibility
from models.config import ModelConfig


def parameter_count(parameters: Any) -> int:
    """How many numbers a parameter tree (abstract or not) holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(parameters))


def keys_seen(span: Visibility, length: int) -> float:
    """How many keys a query of one document of `length` tokens sees, itself included, on average."""
    return float(np.mean(span.keys_seen(np.arange(length), length)))


def training_flops_per_token(config: ModelConfig, length: int) -> float:
    """Floating-point operations of forward and backward per token, matrix products alone.

    6 per weight of every product (the output matrix included, the embedding lookup not), and what mixes tokens: under
    softmax attention 12 · heads · head size per layer and key seen, (L + 1)/2 keys on average where all earlier ones
    are, fewer under a narrower span (Kaplan et al. 2020, section 2.1; PaLM, appendix B, which counts all L). What a
    tile computes beside its visible pairs is not counted.
    """
    matrices = 3 if feed_forward.gated(config.feed_forward.name) else 2
    weights = config.layers * matrices * config.width * config.feed_forward_width
    weights += sum(config.layer_mixer(i).weights(config) for i in range(config.layers))
    weights += config.vocabulary * config.width
    kinds = Counter((config.layer_mixer(i), config.layer_span(i)) for i in range(config.layers))
    mixing = sum(
        layers * mixer.mixing_flops(config, keys_seen(span, length)) for (mixer, span), layers in kinds.items()
    )
    return 6 * weights + 3 * mixing

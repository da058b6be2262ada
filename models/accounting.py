"""Parameters and floating-point operations of a model, counted from its configuration."""

from collections import Counter
from typing import Any

import jax
import numpy as np

from models import feed_forward
from models.attention import Visibility
from models.config import ModelConfig
from models.experts import Experts, Mixture


def parameter_count(parameters: Any) -> int:
    """How many numbers a parameter tree (abstract or not) holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(parameters))


def active_parameter_count(config: ModelConfig, parameters: Any) -> int:
    """How many numbers of a model's parameter tree a token uses: of routed experts, those alone that it passes through.

    The router, shared experts and whole embedding tables count.
    """
    count = parameter_count(parameters)
    for layer in range(config.layers):
        experts = config.layer_experts(layer)
        if isinstance(experts, Mixture):
            width = config.expert_width(experts)
            each = _matrices(config) * config.width * width
            if config.feed_forward.bias:
                each += (_matrices(config) - 1) * width + config.width
            count -= round((experts.count - experts.experts_per_token(1)) * each)
    return count


def keys_seen(span: Visibility, length: int) -> float:
    """How many keys a query of one document of `length` tokens sees, itself included, on average."""
    return float(np.mean(span.keys_seen(np.arange(length), length)))


def training_flops_per_token(config: ModelConfig, length: int) -> float:
    """Floating-point operations of forward and backward per token, matrix products alone.

    6 per weight of every product (the output matrix included, the embedding lookup not), and what mixes tokens: under
    softmax attention 12 · heads · head size per layer and key seen, (L + 1)/2 keys on average where all earlier ones
    are, fewer under a narrower span (Kaplan et al. 2020, section 2.1; PaLM, appendix B, which counts all L). What a
    tile computes beside its visible pairs is not counted. Of a mixture of experts, the router counts and the experts
    that a token passes through, as if none were dropped; not the room that an expert is given and nobody takes.
    """
    weights: float = config.vocabulary * config.width
    weights += sum(_feed_forward_weights(config, config.layer_experts(i), length) for i in range(config.layers))
    weights += sum(config.layer_mixer(i).weights(config) for i in range(config.layers))
    kinds = Counter((config.layer_mixer(i), config.layer_span(i)) for i in range(config.layers))
    mixing = sum(
        layers * mixer.mixing_flops(config, keys_seen(span, length)) for (mixer, span), layers in kinds.items()
    )
    return 6 * weights + 3 * mixing


def _matrices(config: ModelConfig) -> int:
    """How many matrices a feed-forward layer has."""
    return 3 if feed_forward.gated(config.feed_forward.name) else 2


def _feed_forward_weights(config: ModelConfig, experts: Experts, length: int) -> float:
    """The weights of all matrices that a token meets in one feed-forward layer."""
    if not isinstance(experts, Mixture):
        return _matrices(config) * config.width * config.feed_forward_width
    active = experts.experts_per_token(length) + experts.shared
    router = config.width * experts.router_outputs()
    return router + active * _matrices(config) * config.width * config.expert_width(experts)

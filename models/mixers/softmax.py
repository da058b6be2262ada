"""Attention by softmax over all visible keys: multi-head, grouped-query and multi-query."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.attention import AttentionRule
from models.cache import AnyCache, empty_layer
from models.errors import require, require_choice
from models.mixers.attention import AttentionModule
from models.mixers.mixer import Mixer
from models.norms import NORMS, make_norm
from models.parameters import parameter
from models.positions import Tokens

if TYPE_CHECKING:
    from models.config import ModelConfig

Array = jax.Array

SINKS = ("none", "learned")


@Mixer.registry.register("softmax")
@dataclass(frozen=True)
class SoftmaxMixer(Mixer):
    """softmax(q·k/√head_size)·v per head (Vaswani et al. 2017, section 3.2). `kv_heads` of the model below `heads` is
    grouped-query (Ainslie et al. 2023), of 1 multi-query attention (Shazeer 2019).

    Any position, span and temperature. What it does beyond the training length is up to those.

    query_key_norm: "none", or the kind of norm that every query's and key's vector passes, head by head with one scale
      for all, before positions rotate it (Dehghani et al. 2023, section 2; Qwen3). Its ε is the model's.
    sink: "learned" gives every head one more logit in the softmax's denominator, that of no key and no value, which a
      query attends to where nothing is worth it (gpt-oss, 2025; of 0, where it starts, Miller 2023, "Attention Is Off
      By One"). The first tokens then need not serve for that, so a window may lose them.
    soft_cap: c of c·tanh(scores/c), before any bias that positions add to them; 0 is off (Gemma 2, 2024, section 2).
    """

    query_key_norm: str = "none"
    sink: str = "none"
    soft_cap: float = 0.0

    def __post_init__(self):
        require_choice("query_key_norm", self.query_key_norm, dict.fromkeys(("none", *NORMS)))
        require_choice("sink", self.sink, SINKS)
        capped = 0 <= self.soft_cap < math.inf
        require(capped, "soft_cap", self.soft_cap, "a finite number of at least 0 (0 is off)")

    def check(self, config: ModelConfig, index: int) -> None:
        config.layer_position(index).check(config.head_width)

    def module(self, config: ModelConfig, index: int) -> nn.Module:
        return SoftmaxAttention(config, index, self, name="attention")

    def empty(self, config: ModelConfig, index: int, leading: tuple[int, ...], batch: int, capacity: int) -> AnyCache:
        """Keys and values of every head."""
        size = config.head_width
        return empty_layer(config, index, leading, batch, capacity, config.key_heads, size, size)

    def weights(self, config: ModelConfig) -> int:
        return config.width * config.head_width * 2 * (config.heads + config.key_heads)

    def mixing_flops(self, config: ModelConfig, keys: float) -> float:
        return 4 * config.heads * config.head_width * keys


class SoftmaxAttention(AttentionModule):
    """Self-attention of one layer: [B, L, D] -> [B, L, D], through a cache where one is given."""

    mixer: SoftmaxMixer

    @nn.compact
    def __call__(
        self, x_BxLxD: Array, tokens: Tokens, cache: AnyCache | None, slots: Tokens | None, start: Array | None
    ) -> tuple[Array, AnyCache | None]:
        config, mixer, size = self.config, self.mixer, self.config.head_width
        scheme, span = config.layer_position(self.index), config.layer_span(self.index)

        def normed(name: str, x: Array) -> Array:
            if mixer.query_key_norm == "none":
                return x
            return make_norm(mixer.query_key_norm, config.norm.epsilon, "head_size")(name=f"{name}_norm")(x)

        position = scheme.place(tokens)
        q_BxLxHxK = normed("query", self.project("query", x_BxLxD, config.heads, size, "heads"))
        q_BxLxHxK = scheme.rotate(q_BxLxHxK, position)
        k_BxLxGxK = normed("key", self.project("key", x_BxLxD, config.key_heads, size, "kv_heads"))
        k_BxLxGxK = scheme.rotate(k_BxLxGxK, position)
        v_BxLxGxK = self.project("value", x_BxLxD, config.key_heads, size, "kv_heads", self.gains.inner)
        q_BxLxHxK = self.scaled(q_BxLxHxK, tokens)

        q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q_BxLxHxK, k_BxLxGxK, v_BxLxGxK))
        tokens = self.with_features(x_BxLxD, tokens, cache, start)
        keys = tokens
        if cache is not None and slots is not None and start is not None:
            cache, k, v, keys = cache.join(k, v, tokens, slots, start)
        sink_H = None
        if mixer.sink == "learned":
            sink_H = parameter(self, "sink", nn.initializers.zeros, ("heads",), (config.heads,))
        rule = AttentionRule(scheme, span, soft_cap=mixer.soft_cap)
        output = self.attended(rule, size, q, k, v, tokens, keys, sink_H)
        return self.merged(jnp.swapaxes(output, 1, 2)), cache

"""Multi-head latent attention: all heads' keys and values are made of one short vector per token, which is cached."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.attention import AttentionRule
from models.cache import AnyCache, empty_layer
from models.errors import invalid, require
from models.linear import Linear, product
from models.mixers.attention import AttentionModule
from models.mixers.mixer import Mixer
from models.norms import make_norm
from models.parameters import parameter
from models.positions import PositionScheme, Tokens

if TYPE_CHECKING:
    from models.config import ModelConfig

Array = jax.Array


@Mixer.registry.register("latent")
@dataclass(frozen=True)
class LatentMixer(Mixer):
    """Multi-head latent attention (MLA): `c_n = norm(W x_n)` of `rank` numbers in the place of keys and values.

    A head's key is `[r_n ; U_h c_n]`, its value `V_h c_n`, its query `[r_mh ; q_mh]`. The first parts, of
    `rotary_size`, are what positions rotate, and the key's is one for all heads; the rest has the model's head size and
    meets no position. Scores are their dot products over √(rotary_size + head size). Norms of latents are RMSNorm.

    A cache keeps rank + rotary_size numbers a token and layer, whatever the number of heads. With one, `U_h` is applied
    to the query and `V_h` to the output, and heads share the latents as multi-query attention shares keys; without one
    keys and values are made of them, which costs less where there are as many queries as keys. Both are the same
    function. `kv_heads` has no part in it.

    Positions: all that rotate (the rotary part, whose size is theirs) and all that change logits by distance or gates;
    those that learn vectors of a head's size are refused, as no part of a key is what they were made for. The attention
    factor of a scaling multiplies rotary parts alone; a temperature multiplies whole scores.

    rank: of the latents; None is 4 × head size, the paper's. query_rank: of latents that queries are made of; 0 makes
      them of the layer's input (DeepSeek-V2-Lite); the paper's is 12 × head size.
    rotary_size: None is half the head size, rounded up to an even number. value_size: None is the head size.
    Source: DeepSeek-AI (2024), "DeepSeek-V2", section 2.1, arXiv:2405.04434; norms of latents from its section 3.1.2.
    """

    rank: int | None = None
    query_rank: int = 0
    rotary_size: int | None = None
    value_size: int | None = None

    def __post_init__(self):
        for name in ("rank", "rotary_size", "value_size"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "at least 1")
        require(self.query_rank >= 0, "query_rank", self.query_rank, "at least 0 (0 is none)")

    def check(self, config: ModelConfig, index: int) -> None:
        scheme = config.layer_position(index)
        if _learns_vectors(scheme):
            fit = ", ".join(name for name, cls in PositionScheme.registry.items() if not _learns_vectors(cls()))
            raise invalid("position.name", scheme.name, f"one of {fit} under mixer.name = 'latent'")
        scheme.check(self.rotated(config), "mixer.rotary_size")

    def module(self, config: ModelConfig, index: int) -> nn.Module:
        return LatentAttention(config, index, self, name="attention")

    def empty(self, config: ModelConfig, index: int, leading: tuple[int, ...], batch: int, capacity: int) -> AnyCache:
        """In the place of keys the rotary part, in that of values the latent."""
        return empty_layer(config, index, leading, batch, capacity, 1, self.rotated(config), self.latent(config))

    def weights(self, config: ModelConfig) -> int:
        width, heads, size, value = config.width, config.heads, config.head_width, self.value(config)
        rank, rotated = self.latent(config), self.rotated(config)
        queries = heads * (size + rotated)
        queries *= self.query_rank or width
        return width * (self.query_rank + rank + rotated) + queries + heads * (rank * (size + value) + value * width)

    def mixing_flops(self, config: ModelConfig, keys: float) -> float:
        return 2 * config.heads * (config.head_width + self.rotated(config) + self.value(config)) * keys

    def latent(self, config: ModelConfig) -> int:
        """Numbers in a latent."""
        return 4 * config.head_width if self.rank is None else self.rank

    def rotated(self, config: ModelConfig) -> int:
        """Numbers in the part of a query or key that positions rotate."""
        return -(-config.head_width // 4) * 2 if self.rotary_size is None else self.rotary_size

    def value(self, config: ModelConfig) -> int:
        """Numbers in a head's value."""
        return config.head_width if self.value_size is None else self.value_size


def _learns_vectors(scheme: PositionScheme) -> bool:
    """Whether a scheme has learned numbers whose shapes follow the size of a head, or values of its own."""
    shapes = ({name: spec.shape for name, spec in scheme.layer_parameters(1, size).items()} for size in (2, 4))
    return next(shapes) != next(shapes) or not scheme.plain_values()


class Expansion(nn.Module):
    """The kernel [C, H, K] that makes latents a head's vectors, in the compute dtype; applied on either side."""

    shape: tuple[int, int, int]
    dtype: jnp.dtype
    gain: float = 1.0

    @nn.compact
    def __call__(self) -> Array:
        initializer = nn.initializers.truncated_normal(self.gain / math.sqrt(self.shape[0]))
        return parameter(self, "kernel", initializer, (None, "heads", "head_size"), self.shape).astype(self.dtype)


class LatentAttention(AttentionModule):
    """Latent attention of one layer: [B, L, D] -> [B, L, D], through a cache of latents where one is given."""

    mixer: LatentMixer

    @nn.compact
    def __call__(
        self, x_BxLxD: Array, tokens: Tokens, cache: AnyCache | None, slots: Tokens | None, start: Array | None
    ) -> tuple[Array, AnyCache | None]:
        config, mixer, dtype = self.config, self.mixer, self.config.compute_dtype
        heads, rotated, rank = config.heads, mixer.rotated(config), mixer.latent(config)
        scheme, span = config.layer_position(self.index), config.layer_span(self.index)

        def latent(name: str, size: int) -> Array:
            projected = Linear((size,), ("embed", None), dtype, name=name)(x_BxLxD)
            return make_norm("rms", config.norm.epsilon, None)(name=f"{name}_norm")(projected)

        c_BxLxC = latent("latent", rank)
        r_BxLx1xR = self.project("rotary_key", x_BxLxD, 1, rotated, None)
        asking, inputs = (latent("query_latent", mixer.query_rank), None) if mixer.query_rank else (x_BxLxD, "embed")
        size = rotated + config.head_width
        q_BxLxHxK = Linear((heads, size), (inputs, "heads", "head_size"), dtype, name="query")(asking)

        position = scheme.place(tokens)
        r_BxLx1xR = scheme.rotate(r_BxLx1xR, position)
        part, rest = scheme.rotate(q_BxLxHxK[..., :rotated], position), q_BxLxHxK[..., rotated:]
        q_BxLxHxK = self.scaled(jnp.concatenate([part, rest], axis=-1), tokens)
        key_CxHxK = Expansion((rank, heads, config.head_width), dtype, name="key")()
        value_CxHxV = Expansion((rank, heads, mixer.value(config)), dtype, self.gains.inner, name="value")()

        tokens = self.with_features(x_BxLxD, tokens, cache, start)
        rule = AttentionRule(scheme, span, rotary_size=rotated)
        if cache is None or slots is None or start is None:
            k_BxLxHxK, v_BxLxHxV = (_expanded(c_BxLxC, kernel) for kernel in (key_CxHxK, value_CxHxV))
            shared = jnp.broadcast_to(r_BxLx1xR, (*k_BxLxHxK.shape[:3], rotated))
            k_BxLxHxK = jnp.concatenate([shared, k_BxLxHxK], axis=-1)
            q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q_BxLxHxK, k_BxLxHxK, v_BxLxHxV))
            output = self.attended(rule, rotated, q, k, v, tokens, tokens)
            return self.merged(jnp.swapaxes(output, 1, 2)), None
        cache, r, c, keys = cache.join(jnp.swapaxes(r_BxLx1xR, 1, 2), c_BxLxC[:, None], tokens, slots, start)
        of_latents_BxHxLxC = jnp.einsum("blhk,chk->bhlc", q_BxLxHxK[..., rotated:], key_CxHxK)
        q = jnp.concatenate([jnp.swapaxes(q_BxLxHxK[..., :rotated], 1, 2), of_latents_BxHxLxC], axis=-1)
        output = self.attended(rule, rotated, q, jnp.concatenate([r, c], axis=-1), c, tokens, keys)
        return self.merged(jnp.einsum("bhlc,chv->blhv", output, value_CxHxV)), cache


def _expanded(c_BxLxC: Array, kernel_CxHxK: Array) -> Array:
    """Every head's vectors of latents, [B, L, H, K]."""
    rank, heads, size = kernel_CxHxK.shape
    flat = product(c_BxLxC.reshape(-1, rank), kernel_CxHxK.reshape(rank, heads * size))
    return flat.reshape(*c_BxLxC.shape[:2], heads, size)

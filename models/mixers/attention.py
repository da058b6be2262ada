"""What the modules of attention share: the factor on queries, the cache, the tiles, and the map back to the stream."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.attention import AttentionRule, attend, attention_entropy
from models.cache import AnyCache
from models.linear import Linear
from models.parameters import scheme_parameters
from models.placements.placement import Gains
from models.positions import Tokens

if TYPE_CHECKING:
    from models.config import ModelConfig

Array = jax.Array


class AttentionModule(nn.Module):
    """Base of the modules of attention of layer `index`; each declares its own projections."""

    config: ModelConfig
    index: int

    @property
    def gains(self) -> Gains:
        """How large kernels begin under the norm placement."""
        return self.config.norm.placement.gains(self.config.layers)

    def project(self, name: str, x: Array, heads: int, size: int, axis: str | None, gain: float = 1.0) -> Array:
        """x [..., D] as `heads` vectors of `size`."""
        return Linear((heads, size), ("embed", axis, "head_size"), self.config.compute_dtype, gain, name=name)(x)

    def scaled(self, q_BxLxHxK: Array, tokens: Tokens) -> Array:
        """Queries times 1/√K and the layer's temperature."""
        dtype = q_BxLxHxK.dtype
        q_BxLxHxK *= jnp.asarray(1 / math.sqrt(q_BxLxHxK.shape[-1]), dtype)
        temperature = self.config.layer_temperature(self.index)
        specs = temperature.parameters(self.config.heads)
        scale_BxLxH = temperature.scale(scheme_parameters(self, "temperature", specs), tokens.position)
        if scale_BxLxH is not None:
            q_BxLxHxK *= scale_BxLxH[..., None].astype(dtype)
        return q_BxLxHxK

    def with_features(self, x_BxLxD: Array, tokens: Tokens, cache: AnyCache | None, start: Array | None) -> Tokens:
        """The tokens with the scheme's features, which go on from the last slot in use of a cache."""
        config, scheme = self.config, self.config.layer_position(self.index)
        shapes = scheme.feature_shapes(config.heads)
        if not shapes:
            return dataclasses.replace(tokens, features={})
        specs = scheme.feature_parameters(config.width, config.heads)
        parameters = scheme_parameters(self, "position", specs)
        if cache is None or start is None:
            before = {name: jnp.zeros((x_BxLxD.shape[0], *shape), jnp.float32) for name, shape in shapes.items()}
        else:
            before = cache.last_features(start)
        return dataclasses.replace(tokens, features=scheme.features(parameters, x_BxLxD, tokens, before))

    def attended(
        self,
        rule: AttentionRule,
        size: int,
        q_BxHxLxK: Array,
        k_BxGxSxK: Array,
        v_BxGxSxV: Array,
        query: Tokens,
        key: Tokens,
        sink_H: Array | None = None,
    ) -> Array:
        """Attention [B, H, L, V] under the rule; `size` is of the vectors that the scheme sees."""
        config = self.config
        parameters = scheme_parameters(self, "position", rule.scheme.layer_parameters(config.heads, size))
        output = attend(config.attention, rule, parameters, q_BxHxLxK, k_BxGxSxK, v_BxGxSxV, query, key, sink_H)
        # Asked for by who makes this collection mutable; never traced otherwise.
        if self.is_mutable_collection("intermediates"):
            entropy = attention_entropy(rule, parameters, q_BxHxLxK, k_BxGxSxK, query, key)
            self.sow("intermediates", "entropy", entropy)
        return output

    def merged(self, output_BxLxHxV: Array) -> Array:
        """The heads' outputs as what the layer adds to the stream, [B, L, D]."""
        merge = Linear(
            (self.config.width,),
            ("heads", "head_size", "embed"),
            self.config.compute_dtype,
            gain=self.gains.output,
            inputs=2,
            name="output",
        )
        return merge(output_BxLxHxV)

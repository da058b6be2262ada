"""Cross-attention: queries of one sequence over the states of another."""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.attention import AttentionRule, Visibility
from models.attention.visibility import Bounds
from models.mixers.attention import AttentionModule
from models.positions import NoPosition, Tokens

Array = jax.Array


@dataclass(frozen=True)
class Everything(Visibility):
    """Every key of the query's document, at whatever position: those of another sequence are neither before nor after.

    No alternative of a decoder's span, in which a token must not see what follows it.
    """

    name = "everything"

    def sees(self, query_position: Array, key_position: Array) -> Array:
        shape = jnp.broadcast_shapes(query_position.shape, key_position.shape)
        return jnp.ones(shape, bool)

    def sees_some(self, query: Bounds, key: Bounds) -> Array:
        return self.sees(query.low, key.low)

    def is_causal(self) -> bool:
        return False


class CrossAttention(AttentionModule):
    """softmax(q·k/√head_size)·v, [B, L, D], with queries of x [B, L, D] and keys and values of states [B, S, E].

    Each sequence has tokens of its own. A query sees the states of its document and no padding; where there are none
    it gets zeros. Positions and temperature have no part in it: they are in what both sequences are made of.
    Source: Vaswani et al. (2017), section 3.2.3.
    """

    @nn.compact
    def __call__(self, x_BxLxD: Array, tokens: Tokens, states_BxSxE: Array, their: Tokens) -> Array:
        config, size = self.config, self.config.head_width
        q_BxLxHxK = self.project("query", x_BxLxD, config.heads, size, "heads") * size**-0.5
        k_BxSxGxK, v_BxSxGxK = (
            self.project(name, states_BxSxE, config.key_heads, size, "kv_heads", gain)
            for name, gain in (("key", 1.0), ("value", self.gains.inner))
        )
        q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q_BxLxHxK, k_BxSxGxK, v_BxSxGxK))
        output = self.attended(AttentionRule(NoPosition(), Everything()), size, q, k, v, tokens, their)
        return self.merged(jnp.swapaxes(output, 1, 2))

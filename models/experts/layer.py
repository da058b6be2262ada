"""The feed-forward sublayer as a mixture of experts: router, experts and shared experts, with their parameters."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.experts.experts import Groups, Mixture
from models.experts.ragged import ragged_product
from models.feed_forward import FeedForward, FeedForwardKind, feed_forward
from models.parameters import parameter

Array = jax.Array

# The collection that facts about routing flow out through, for who makes it mutable: "loss" and metrics of each layer.
COLLECTION = "experts"


class ExpertLinear(nn.Module):
    """A linear map of each expert: [E, N, I] -> [E, N, O], or [M, I] -> [M, O] for rows sorted by expert.

    kernel [E, I, O], initially as that of a Linear with I inputs; bias [E, O] where it has one.
    """

    count: int
    features: int
    axes: tuple[str, str]  # logical axis names of I and O
    dtype: jnp.dtype
    gain: float
    bias: bool

    @nn.compact
    def __call__(self, x: Array, groups: Groups | None) -> Array:
        inputs = x.shape[-1]
        initializer = nn.initializers.truncated_normal(self.gain / math.sqrt(inputs))
        shape = (self.count, inputs, self.features)
        kernel_ExIxO = parameter(self, "kernel", initializer, ("experts", *self.axes), shape).astype(self.dtype)
        x = x.astype(self.dtype)
        y = jnp.einsum("eni,eio->eno", x, kernel_ExIxO) if groups is None else ragged_product(x, kernel_ExIxO, groups)
        if self.bias:
            axes, zeros = ("experts", self.axes[1]), nn.initializers.zeros
            bias_ExO = parameter(self, "bias", zeros, axes, (self.count, self.features)).astype(self.dtype)
            y += bias_ExO[:, None] if groups is None else bias_ExO[groups.expert_M]
        return y


class ExpertFeedForward(nn.Module):
    """As FeedForward, of each expert: [E, N, D] -> [E, N, D], or [M, D] -> [M, D] for rows sorted by expert."""

    kind: FeedForwardKind
    width: int
    count: int

    @nn.compact
    def __call__(self, x: Array, groups: Groups | None) -> Array:
        kind = self.kind

        def linear(name: str, features: int, axes: tuple[str, str], gain: float) -> Callable[[Array], Array]:
            layer = ExpertLinear(self.count, features, axes, kind.dtype, gain, kind.bias, name=name)
            return functools.partial(layer, groups=groups)

        return feed_forward(kind, self.width, linear, x)


class ExpertLayer(nn.Module):
    """[B, L, D] -> [B, L, D]: what the experts that a token is routed to, and the shared ones, add to it.

    width: hidden size of one expert. training: whether capacities hold.
    """

    mixture: Mixture
    kind: FeedForwardKind
    width: int
    training: bool

    @nn.compact
    def __call__(self, x_BxLxD: Array, real_BxL: Array) -> Array:
        mixture, kind, model_width = self.mixture, self.kind, x_BxLxD.shape[-1]
        router_DxE = Router(mixture.router_outputs(), name="router")(model_width)
        # Float32 whatever the dtype: rounded logits would send tokens to other experts.
        logits_BxLxE = jnp.einsum(
            "bld,de->ble", x_BxLxD.astype(jnp.float32), router_DxE, precision=jax.lax.Precision.HIGHEST
        )
        experts = ExpertFeedForward(kind, self.width, mixture.count, name="experts")
        real_BxL = jnp.broadcast_to(real_BxL, x_BxLxD.shape[:2])
        output_BxLxD, facts = mixture.mix(logits_BxLxE, x_BxLxD.astype(kind.dtype), real_BxL, experts, self.training)
        for fact, value in facts.items():
            self.sow(COLLECTION, fact, value, reduce_fn=lambda _, new: new, init_fn=lambda: None)
        if mixture.shared:
            output_BxLxD += FeedForward(kind, mixture.shared * self.width, name="shared")(x_BxLxD)
        return output_BxLxD


class Router(nn.Module):
    """The router's kernel, float32 [D, E]; never split by expert, since every token asks all of them."""

    outputs: int

    @nn.compact
    def __call__(self, width: int) -> Array:
        initializer = nn.initializers.truncated_normal(1 / math.sqrt(width))
        return parameter(self, "kernel", initializer, ("embed", None), (width, self.outputs))

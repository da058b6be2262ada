"""The dense feed-forward layer: plain (ReLU, GELU, …) or gated (SwiGLU, GEGLU, …; Shazeer 2020)."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.feed_forward.activations import ACTIVATIONS, gated
from models.linear import Linear

Array = jax.Array


def hidden_units(name: str, width: int) -> int:
    """The conventional hidden size of an activation in a model of that width: 4 × width, or 8/3 of it where it gates.

    Three matrices in place of two: the same number of parameters (Shazeer 2020), rounded up to a multiple of 8 for the
    hardware.
    """
    return -(-8 * width // 24) * 8 if gated(name) else 4 * width


@dataclass(frozen=True)
class FeedForwardKind:
    """What the dense layers and the experts of a model have in common.

    activation: a name of models.feed_forward.ACTIVATIONS. bias: on all linear maps. dtype: of computation.
    input_gain, output_gain: of the kernels into and out of the hidden units at initialization.
    """

    activation: str
    bias: bool = False
    dtype: jnp.dtype = jnp.float32
    input_gain: float = 1.0
    output_gain: float = 1.0


class FeedForward(nn.Module):
    """[B, L, D] -> [B, L, D]: out(act(up(x))), or out(act(gate(x)) · up(x)) for an activation that gates.

    width: hidden size.
    """

    kind: FeedForwardKind
    width: int

    @nn.compact
    def __call__(self, x_BxLxD: Array) -> Array:
        kind, (activation, gates) = self.kind, ACTIVATIONS[self.kind.activation]

        def linear(name: str, features: int, axes: tuple[str, str], gain: float) -> Linear:
            return Linear((features,), axes, kind.dtype, gain=gain, bias=kind.bias, name=name)

        up_axes = ("embed", "feed_forward")
        hidden = linear("up", self.width, up_axes, kind.input_gain)(x_BxLxD)
        if gates:
            hidden *= activation(linear("gate", self.width, up_axes, kind.input_gain)(x_BxLxD))
        else:
            hidden = activation(hidden)
        return linear("output", x_BxLxD.shape[-1], ("feed_forward", "embed"), kind.output_gain)(hidden)

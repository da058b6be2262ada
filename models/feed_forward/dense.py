"""The dense feed-forward layer: plain (ReLU, GELU, …) or gated (SwiGLU, GEGLU, …; Shazeer 2020)."""

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


class FeedForward(nn.Module):
    """[B, L, D] -> [B, L, D]: out(act(up(x))), or out(act(gate(x)) · up(x)) for an activation that gates.

    name_of_activation: of models.feed_forward.ACTIVATIONS. width: hidden size. bias: on all of its linear maps.
    """

    name_of_activation: str
    width: int
    dtype: jnp.dtype
    output_gain: float
    bias: bool = False
    input_gain: float = 1.0

    @nn.compact
    def __call__(self, x_BxLxD: Array) -> Array:
        activation, gates = ACTIVATIONS[self.name_of_activation]
        up_axes = ("embed", "feed_forward")

        def into(name: str) -> Linear:
            return Linear((self.width,), up_axes, self.dtype, gain=self.input_gain, bias=self.bias, name=name)

        hidden = into("up")(x_BxLxD)
        if gates:
            hidden *= activation(into("gate")(x_BxLxD))
        else:
            hidden = activation(hidden)
        output = Linear(
            (x_BxLxD.shape[-1],),
            ("feed_forward", "embed"),
            self.dtype,
            gain=self.output_gain,
            bias=self.bias,
            name="output",
        )
        return output(hidden)

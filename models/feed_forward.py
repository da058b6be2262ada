"""The feed-forward sublayer: plain (GELU, ReLU) and gated (SwiGLU, GEGLU; Shazeer 2020)."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.linear import Linear

Array = jax.Array

# Name in a configuration: the activation, and whether it gates a second projection.
# Backward computes an activation again from its input: keeping what lies between costs more than computing it.
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], bool]] = {
    "gelu": (jax.checkpoint(nn.gelu), False),
    "relu": (nn.relu, False),
    "swiglu": (jax.checkpoint(nn.silu), True),
    "geglu": (jax.checkpoint(nn.gelu), True),
}


def gated(name: str) -> bool:
    """Whether the activation of that name multiplies a second projection."""
    return ACTIVATIONS[name][1]


class FeedForward(nn.Module):
    """[B, L, D] -> [B, L, D]: out(act(x · up)), or out(act(x · gate) * (x · up)). GELU is the tanh approximation."""

    name_of_activation: str
    width: int
    dtype: jnp.dtype
    output_gain: float
    input_gain: float = 1.0

    @nn.compact
    def __call__(self, x_BxLxD: Array) -> Array:
        activation, gates = ACTIVATIONS[self.name_of_activation]
        up_axes = ("embed", "feed_forward")
        hidden = Linear((self.width,), up_axes, self.dtype, gain=self.input_gain, name="up")(x_BxLxD)
        if gates:
            gate = Linear((self.width,), up_axes, self.dtype, gain=self.input_gain, name="gate")
            hidden *= activation(gate(x_BxLxD))
        else:
            hidden = activation(hidden)
        output = Linear(
            (x_BxLxD.shape[-1],), ("feed_forward", "embed"), self.dtype, gain=self.output_gain, name="output"
        )
        return output(hidden)

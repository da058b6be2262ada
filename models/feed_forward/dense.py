"""The dense feed-forward layer: plain (ReLU, GELU, …) or gated (SwiGLU, GEGLU, …; Shazeer 2020)."""

from collections.abc import Callable
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


# (name, features, logical axis names, gain) -> a linear map of that name.
MakeLinear = Callable[[str, int, tuple[str, str], float], Callable[[Array], Array]]


def feed_forward(kind: FeedForwardKind, width: int, linear: MakeLinear, x: Array) -> Array:
    """[..., D] -> [..., D]: out(act(up(x))), or out(act(gate(x)) · up(x)) for an activation that gates.

    width: hidden size. linear makes the maps `up`, `gate` and `output`.
    """
    activation, gates = ACTIVATIONS[kind.activation]
    up_axes = ("embed", "feed_forward")
    hidden = linear("up", width, up_axes, kind.input_gain)(x)
    if gates:
        hidden *= activation(linear("gate", width, up_axes, kind.input_gain)(x))
    else:
        hidden = activation(hidden)
    return linear("output", x.shape[-1], ("feed_forward", "embed"), kind.output_gain)(hidden)


class FeedForward(nn.Module):
    """The layer of every token alone, [B, L, D] -> [B, L, D]. width: hidden size."""

    kind: FeedForwardKind
    width: int

    @nn.compact
    def __call__(self, x_BxLxD: Array) -> Array:
        kind = self.kind

        def linear(name: str, features: int, axes: tuple[str, str], gain: float) -> Linear:
            return Linear((features,), axes, kind.dtype, gain=gain, bias=kind.bias, name=name)

        return feed_forward(kind, self.width, linear, x_BxLxD)

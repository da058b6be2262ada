"""Activations by name: functions of one projection, and gates of a second one (Shazeer 2020)."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


def squared_relu(x: Array) -> Array:
    """max(x, 0)² (So et al. 2021, "Primer", arXiv:2109.08668)."""
    return jnp.square(nn.relu(x))


# Where more than the input or the output would be kept for the backward pass, it is computed again from the input:
# keeping what lies between costs more.
_gelu = jax.checkpoint(functools.partial(nn.gelu, approximate=True))
_exact_gelu = jax.checkpoint(functools.partial(nn.gelu, approximate=False))
_silu = jax.checkpoint(nn.silu)

# Name in a configuration: the activation, and whether it gates a second projection.
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], bool]] = {
    "relu": (nn.relu, False),
    "squared_relu": (jax.checkpoint(squared_relu), False),
    "leaky_relu": (functools.partial(nn.leaky_relu, negative_slope=0.01), False),
    "elu": (jax.checkpoint(nn.elu), False),
    "sigmoid": (nn.sigmoid, False),
    "tanh": (nn.tanh, False),
    "gelu": (_gelu, False),  # the tanh approximation (Hendrycks & Gimpel 2016, section 2)
    "gelu_exact": (_exact_gelu, False),
    "silu": (_silu, False),
    "glu": (nn.sigmoid, True),
    "reglu": (nn.relu, True),
    "geglu": (_gelu, True),
    "swiglu": (_silu, True),
}


def gated(name: str) -> bool:
    """Whether the activation of that name multiplies a second projection."""
    return ACTIVATIONS[name][1]

"""The linear map of every layer, without bias, as one matrix product over all tokens of a batch."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.parameters import parameter

Array = jax.Array


class Linear(nn.Module):
    """x [..., D] · kernel [D, *features] -> [..., *features].

    Activations are flattened to two axes first: with three, XLA on CPU transposes copies for the kernel's gradient.
    axes: logical axis names of the kernel. gain: factor on 1/√D, the standard deviation that the initial kernel's
    normal distribution has before it is cut off at two of it.
    """

    features: Sequence[int]
    axes: tuple[str, ...]
    dtype: jnp.dtype
    gain: float = 1.0
    inputs: int = 1  # how many last axes of x are summed over

    @nn.compact
    def __call__(self, x: Array) -> Array:
        summed, kept = x.shape[x.ndim - self.inputs :], x.shape[: x.ndim - self.inputs]
        fan_in, fan_out = math.prod(summed), math.prod(self.features)
        initializer = nn.initializers.truncated_normal(self.gain / math.sqrt(fan_in))
        kernel = parameter(self, "kernel", initializer, self.axes, (*summed, *self.features))
        flat = x.reshape(-1, fan_in).astype(self.dtype) @ kernel.reshape(fan_in, fan_out).astype(self.dtype)
        return flat.reshape(*kept, *self.features)

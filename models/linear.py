"""The linear map of every layer as one matrix product over all tokens of a batch."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.parameters import parameter

Array = jax.Array


class Linear(nn.Module):
    """x [..., D] · kernel [D, *features] -> [..., *features]; plus bias [*features], initially 0, where it has one.

    Activations are flattened to two axes first: with three, XLA on CPU transposes copies for the kernel's gradient.
    axes: logical axis names of the kernel. gain: factor on 1/√D, the standard deviation that the initial kernel's
    normal distribution has before it is cut off at two of it.
    """

    features: Sequence[int]
    axes: tuple[str | None, ...]
    dtype: jnp.dtype
    gain: float = 1.0
    inputs: int = 1  # how many last axes of x are summed over
    bias: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        summed, kept = x.shape[x.ndim - self.inputs :], x.shape[: x.ndim - self.inputs]
        fan_in, fan_out = math.prod(summed), math.prod(self.features)
        initializer = nn.initializers.truncated_normal(self.gain / math.sqrt(fan_in))
        kernel = parameter(self, "kernel", initializer, self.axes, (*summed, *self.features))
        flat = product(x.reshape(-1, fan_in).astype(self.dtype), kernel.reshape(fan_in, fan_out).astype(self.dtype))
        if self.bias:
            bias = parameter(self, "bias", nn.initializers.zeros, self.axes[self.inputs :], self.features)
            flat += bias.reshape(fan_out).astype(self.dtype)
        return flat.reshape(*kept, *self.features)


@jax.custom_vjp
def product(x_NxI: Array, kernel_IxO: Array) -> Array:
    """x · kernel, [N, O], in the dtype of both."""
    return x_NxI @ kernel_IxO


def _forward(x_NxI: Array, kernel_IxO: Array) -> tuple[Array, tuple[Array, Array]]:
    return x_NxI @ kernel_IxO, (x_NxI, kernel_IxO)


def _backward(residuals: tuple[Array, Array], d_NxO: Array) -> tuple[Array, Array]:
    x_NxI, kernel_IxO = residuals
    return d_NxO @ kernel_IxO.T, sum_of_outer(x_NxI, d_NxO).astype(kernel_IxO.dtype)


product.defvjp(_forward, _backward)


def sum_of_outer(x_NxI: Array, y_NxO: Array) -> Array:
    """xᵀ · y, float32 [I, O]: what a kernel's gradient is.

    XLA on CPU is up to 1.4 times as fast with the wider factor on the right, so a product that has it on the left is
    made transposed there.
    """
    if x_NxI.shape[1] <= y_NxO.shape[1]:
        return _sum_of_outer(x_NxI, y_NxO)
    return jax.lax.platform_dependent(
        x_NxI,
        y_NxO,
        # Without the barrier XLA would undo both transpositions.
        cpu=lambda x, y: jax.lax.optimization_barrier(_sum_of_outer(y, x)).T,
        default=_sum_of_outer,
    )


def _sum_of_outer(x_NxI: Array, y_NxO: Array) -> Array:
    return jax.lax.dot_general(x_NxI, y_NxO, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)

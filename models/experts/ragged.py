"""The product of rows that are sorted by expert with the kernel of each row's expert."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from models.experts.experts import Groups

Array = jax.Array

LARGEST_BLOCK = 64  # rows


@jax.custom_vjp
def ragged_product(x_MxI: Array, kernel_ExIxO: Array, groups: Groups) -> Array:
    """x_m · kernel of the expert of row m, [M, O], in the dtype of both."""
    return jax.lax.platform_dependent(x_MxI, kernel_ExIxO, groups, cpu=in_blocks, default=in_groups)


def _forward(x_MxI: Array, kernel_ExIxO: Array, groups: Groups) -> tuple[Array, tuple[Array, Array, Groups]]:
    return ragged_product(x_MxI, kernel_ExIxO, groups), (x_MxI, kernel_ExIxO, groups)


# The factors alone are kept: differentiated from outside, what every platform's way would keep is kept.
def _backward(residuals: tuple[Array, Array, Groups], d_MxO: Array) -> tuple[Array, Array, None]:
    def pull(product: Callable[..., Array], x: Array, kernel: Array, groups: Groups, d: Array) -> tuple[Array, Array]:
        return jax.vjp(lambda x, kernel: product(x, kernel, groups), x, kernel)[1](d)

    ways = {"cpu": functools.partial(pull, in_blocks), "default": functools.partial(pull, in_groups)}
    d_x, d_kernel = jax.lax.platform_dependent(*residuals, d_MxO, **ways)
    return d_x, d_kernel, None


ragged_product.defvjp(_forward, _backward)


def in_groups(x_MxI: Array, kernel_ExIxO: Array, groups: Groups) -> Array:
    """ragged_product as one primitive; XLA on CPU would multiply every row with every kernel."""
    return jax.lax.ragged_dot(x_MxI, kernel_ExIxO, groups.sizes_E)


def in_blocks(x_MxI: Array, kernel_ExIxO: Array, groups: Groups) -> Array:
    """ragged_product as a batch of products of equally many rows, each of one expert; the last of an expert is padded
    with zeros."""
    (rows, inputs), (count, _, outputs) = x_MxI.shape, kernel_ExIxO.shape
    size = min(max(rows // count, 1), LARGEST_BLOCK)
    blocks = rows // size + count  # at least as many as the experts' rows need
    last_E = jnp.cumsum(-(-groups.sizes_E // size))  # the block after each expert's
    first_E = last_E - -(-groups.sizes_E // size)
    start_E = jnp.cumsum(groups.sizes_E) - groups.sizes_E
    place_M = first_E[groups.expert_M] * size + jnp.arange(rows) - start_E[groups.expert_M]
    x_NxSxI = jnp.zeros((blocks * size, inputs), x_MxI.dtype).at[place_M].set(x_MxI).reshape(blocks, size, inputs)
    expert_N = jnp.searchsorted(last_E, jnp.arange(blocks), side="right")
    # As a product, so that the gradient is one too: XLA on CPU adds up in a scatter number by number.
    owner_NxE = jax.nn.one_hot(expert_N, count, dtype=kernel_ExIxO.dtype)
    kernel_NxIxO = jnp.einsum("ne,eio->nio", owner_NxE, kernel_ExIxO)
    return jnp.einsum("nsi,nio->nso", x_NxSxI, kernel_NxIxO).reshape(-1, outputs)[place_M]

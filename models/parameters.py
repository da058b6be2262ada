"""Declaring parameters: float32 arrays that carry a logical axis name per axis, which sharding rules map to a mesh."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.positions.scheme import ParameterSpec

Array = jax.Array


def parameter(
    module: nn.Module, name: str, initializer: Callable[..., Any], axes: Sequence[str | None], shape: Sequence[int]
) -> Array:
    """The float32 parameter `name` of `module`, declared with one logical axis name (or None) per axis."""
    boxed: Any = nn.with_logical_partitioning(initializer, tuple(axes))
    return module.param(name, boxed, tuple(shape), jnp.float32)


def scheme_parameters(module: nn.Module, prefix: str, specs: dict[str, ParameterSpec]) -> dict[str, Array]:
    """Learned numbers of a positional scheme as parameters of `module`, each named `prefix_name`."""
    return {
        name: parameter(module, f"{prefix}_{name}", spec.initializer, spec.axes, spec.shape)
        for name, spec in specs.items()
    }

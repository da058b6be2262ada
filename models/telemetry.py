"""What training can be watched by, layer by layer: the size of activations, and of gradients."""

from typing import Any

import jax
import jax.numpy as jnp

from models.config import ModelConfig
from models.transformer import unroll_parameters

Array = jax.Array


def layer_mean_squares(config: ModelConfig, telemetry: dict[str, Any]) -> Array:
    """Mean square of the residual stream after each layer, over tokens and channels, float32 [layers].

    telemetry: the collection of that name, of a Transformer that was applied with it mutable.
    """
    return jnp.stack([layer["mean_square"] for layer in _by_layer(config, telemetry)])


def layer_gradient_norms(config: ModelConfig, gradient: dict[str, Any]) -> Array:
    """L2 norm over the parameters of each layer, float32 [layers]; embeddings and the final norm are of no layer."""

    def sum_of_squares(unit: str, x: Array) -> Array:
        return jnp.sum(jnp.square(x), axis=tuple(range(1 if unit == "units" else 0, x.ndim)))

    squares = {
        unit: jax.tree.map(lambda x, unit=unit: sum_of_squares(unit, x), tree)
        for unit, tree in gradient.items()
        if isinstance(tree, dict)
    }
    return jnp.sqrt(jnp.stack([sum(jax.tree.leaves(layer)) for layer in _by_layer(config, squares)]))


def _by_layer(config: ModelConfig, tree: dict[str, Any]) -> list[dict[str, Any]]:
    """The layers' parts of a tree that has the structure of the parameters, in the order of the stack."""
    unrolled, pattern = unroll_parameters(config, tree), len(config.pattern)
    repeats = config.layers // pattern
    places = [divmod(layer, pattern) for layer in range(config.layers)]
    return [unrolled[f"unit_{unit}" if unit < repeats else "last_unit"][f"layer_{place}"] for unit, place in places]

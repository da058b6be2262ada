"""What mixtures of experts tell the trainer: the losses that balance them, and who was sent where."""

from typing import Any

import jax
import jax.numpy as jnp

from models.config import ModelConfig
from models.transformer import unroll_parameters

Array = jax.Array


def routing_facts(model: ModelConfig, sown: dict[str, Any]) -> tuple[Array, dict[str, Array]]:
    """The sum over layers of their losses, float32 []; and, by layer, what else each says of its routing.

    sown: the collection models.experts.layer.COLLECTION of one pass. Names are such as "layer_3/expert_load", float32
    [E], where layers are numbered from 0.
    """
    losses: list[Array] = []
    facts: dict[str, Array] = {}
    for unit, places in unroll_parameters(model, sown).items():
        first = model.layers // len(model.pattern) if unit == "last_unit" else int(unit.removeprefix("unit_"))
        for place, parts in places.items():
            layer = first * len(model.pattern) + int(place.removeprefix("layer_"))
            for name, value in parts["feed_forward"].items():
                if name == "loss":
                    losses.append(value)
                else:
                    facts[f"layer_{layer}/{name}"] = value
    return jnp.sum(jnp.stack(losses)), facts

"""What the trainer makes of what experts say: losses are summed, metrics are named by layer."""

import jax.numpy as jnp

from models.config import LayerConfig, ModelConfig
from models.experts import Dropless
from train.routing import routing_facts


def said(number):
    return {"feed_forward": {"loss": jnp.array(number), "router_entropy": 10 * jnp.array(number)}}


def test_layers_are_counted_through_the_pattern():
    """Of five layers in units of two, the second of each unit has experts, or both have."""
    experts = LayerConfig(experts=Dropless())
    sparse = ModelConfig(layers=5, pattern=(LayerConfig(), experts))
    loss, facts = routing_facts(sparse, {"units": {"layer_1": said([1.0, 2.0])}})
    assert float(loss) == 3
    assert {name: float(value) for name, value in facts.items()} == {
        "layer_1/router_entropy": 10,
        "layer_3/router_entropy": 20,
    }
    every = ModelConfig(layers=5, pattern=(experts, experts), layer_loop="unroll")
    units = {f"unit_{i}": {f"layer_{j}": said(2.0 * i + j) for j in range(2)} for i in range(2)}
    loss, facts = routing_facts(every, units | {"last_unit": {"layer_0": said(4.0)}})
    assert float(loss) == 10
    assert {name: float(value) for name, value in facts.items()} == {
        f"layer_{i}/router_entropy": 10.0 * i for i in range(5)
    }

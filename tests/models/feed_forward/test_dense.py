"""The dense layer against its formula, with and without biases, and its conventional hidden sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.feed_forward import ACTIVATIONS, FeedForward, FeedForwardKind, gated, hidden_units
from tests.models.samples import random


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", ["relu", "tanh", "glu", "reglu"])
def test_a_layer_follows_its_formula(name, bias):
    activation = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh, "glu": lambda x: 1 / (1 + np.exp(-x))}
    activation["reglu"] = activation["relu"]
    shapes = {"up": (6, 10), "gate": (6, 10), "output": (10, 6)}
    if not gated(name):
        del shapes["gate"]
    parameters = {part: {"kernel": random(*shape, seed=i + 1)} for i, (part, shape) in enumerate(shapes.items())}
    if bias:
        for i, part in enumerate(parameters):
            parameters[part]["bias"] = random(shapes[part][1], seed=i + 9)
    x = random(2, 3, 6)

    def linear(part, x):
        return x @ np.asarray(parameters[part]["kernel"], np.float64) + np.asarray(parameters[part].get("bias", 0))

    up = linear("up", np.asarray(x, np.float64))
    gate = linear("gate", np.asarray(x, np.float64)) if gated(name) else up
    hidden = activation[name](gate) * (up if gated(name) else 1)
    got = FeedForward(FeedForwardKind(name, bias, output_gain=0.5), 10).apply({"params": parameters}, x)
    np.testing.assert_allclose(got, linear("output", hidden), rtol=1e-5, atol=1e-5)


def test_biases_start_at_zero_and_are_split_as_their_kernels_outputs():
    module = FeedForward(FeedForwardKind("swiglu", bias=True, output_gain=0.5), 10)
    boxed = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 1, 6))))["params"]
    assert {part: leaf["bias"].names for part, leaf in boxed.items()} == {
        "up": ("feed_forward",),
        "gate": ("feed_forward",),
        "output": ("embed",),
    }
    plain = FeedForward(FeedForwardKind("swiglu", output_gain=0.5), 10)
    assert all("bias" not in leaf for leaf in plain.init(jax.random.key(0), jnp.zeros((1, 1, 6)))["params"].values())
    fresh = module.init(jax.random.key(0), jnp.zeros((1, 1, 6)))["params"]
    assert all((leaf["bias"].unbox() == 0).all() for leaf in fresh.values())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_conventional_sizes_cost_alike(name):
    """Two matrices of 4 × width, or three of 8/3 of it, in multiples of 8."""
    assert hidden_units(name, 128) == (344 if gated(name) else 512)
    assert hidden_units(name, 96) * (3 if gated(name) else 2) == 8 * 96

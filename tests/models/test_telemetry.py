"""Sizes layer by layer: those of the arrays themselves, in the order of the stack, whatever the loop."""

import jax
import numpy as np
import pytest

from models.config import LayerConfig, NormConfig
from models.placements import NoNorm
from models.telemetry import layer_gradient_norms, layer_mean_squares
from models.transformer import Transformer, unroll_parameters
from tests.models.samples import TINY, compiled, parameters_of, relative_error, text, whole

# A remainder after two units of two; the hidden states are the residual stream itself.
CONFIG = TINY.replace(layers=5, pattern=(LayerConfig(), LayerConfig()), norm=NormConfig(placement=NoNorm()))


@pytest.mark.parametrize("policy", ["none", "full"])
def test_activations_are_measured_after_each_layer(policy):
    @compiled
    def measure(parameters):
        config = CONFIG.replace(rematerialize=policy)
        (hidden, _), sown = Transformer(config).apply({"params": parameters}, text(2), whole(2), mutable=["telemetry"])
        return hidden, layer_mean_squares(config, sown["telemetry"])

    parameters = parameters_of(CONFIG)
    hidden, found = measure(parameters)
    assert found.shape == (5,)
    np.testing.assert_allclose(found[4], np.mean(np.square(hidden)), rtol=1e-5)
    # Layers from the third on changed to add nothing: the stream stays as it was after the second.
    silent = jax.tree.map(lambda x: x.at[1].set(0), parameters["units"])
    silent = parameters | {"units": silent, "last_unit": jax.tree.map(np.zeros_like, parameters["last_unit"])}
    hidden, found = measure(silent)
    np.testing.assert_allclose(found[1:], np.mean(np.square(hidden)), rtol=1e-5)
    assert relative_error(found[:1], found[1:2]) > 1e-3


def test_gradients_are_measured_over_the_parameters_of_each_layer():
    gradient = parameters_of(CONFIG)
    found = layer_gradient_norms(CONFIG, gradient)
    unrolled = unroll_parameters(CONFIG, gradient)
    layers = [unrolled[f"unit_{i // 2}"][f"layer_{i % 2}"] for i in range(4)] + [unrolled["last_unit"]["layer_0"]]
    wanted = [np.sqrt(sum((np.asarray(x, np.float64) ** 2).sum() for x in jax.tree.leaves(one))) for one in layers]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    loop = CONFIG.replace(layer_loop="unroll")
    np.testing.assert_allclose(layer_gradient_norms(loop, unrolled), wanted, rtol=1e-6)

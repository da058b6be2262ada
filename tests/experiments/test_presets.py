"""Published mixtures: the patterns say what was published, and configurations hold them."""

import jax
import numpy as np
import pytest

from experiments.presets import PRESETS, gemma3, irope, plain_pattern, smollm3
from models.attention.visibility import Chunked, Full, Sliding
from models.config import LayerConfig, ModelConfig
from models.positions import Rotary
from models.transformer import init_parameters
from train.configuration import from_config_dict


def of(pattern, layers=12):
    """Name, base, span and temperature of each layer."""
    model = ModelConfig(layers=layers, pattern=pattern)
    schemes = [model.layer_position(i) for i in range(layers)]
    spans = [model.layer_span(i) for i in range(layers)]
    temperatures = [model.layer_temperature(i) for i in range(layers)]
    bases = [scheme.base if isinstance(scheme, Rotary) else None for scheme in schemes]
    return bases, spans, [temperature.name for temperature in temperatures]


def test_irope_has_every_fourth_layer_without_positions_and_chunks_elsewhere():
    bases, spans, temperatures = of(irope())
    assert bases == [5e5, 5e5, 5e5, None] * 3
    assert spans == [Chunked(8192), Chunked(8192), Chunked(8192), Full()] * 3
    assert temperatures == ["none", "none", "none", "llama4"] * 3
    # Llama 4: log1p(floor((position + 1) / 8192)) * 0.1 + 1.
    position = np.array([[0, 8190, 8191, 100_000]], np.int32)
    scale = irope()[3].temperature.scale({}, position)[0, :, 0]
    np.testing.assert_allclose(scale, 1 + 0.1 * np.log1p([0, 0, 1, 12]), rtol=1e-6)


def test_smollm3_has_every_fourth_layer_without_positions():
    bases, spans, _ = of(smollm3())
    assert bases == [5e4, 5e4, 5e4, None] * 3 and set(spans) == {Full()}


def test_gemma3_has_five_local_layers_to_a_global_one_which_alone_is_extended():
    bases, spans, _ = of(gemma3())
    assert bases == [1e4] * 5 + [1e6] + [1e4] * 5 + [1e6]
    assert spans == ([Sliding(1024)] * 5 + [Full()]) * 2
    for before, after in zip(gemma3(), gemma3(factor=8.0), strict=True):
        divided = before.position.frequencies(64) / after.position.frequencies(64)
        np.testing.assert_allclose(divided, 8.0 if before.span == Full() else 1.0, rtol=1e-12)


@pytest.mark.parametrize("name", PRESETS)
def test_a_configuration_holds_a_pattern_and_its_model_can_be_made(name):
    pattern = PRESETS[name]()
    plain = plain_pattern(pattern)
    assert tuple(from_config_dict(LayerConfig, layer) for layer in plain) == pattern
    model = ModelConfig(vocabulary_size=16, layers=8, width=16, heads=2, pattern=pattern)
    assert jax.eval_shape(lambda: init_parameters(model, 0))

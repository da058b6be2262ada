"""Whole layers and whole mixtures against the models of transformers, and mixtures against their reports."""

import numpy as np
import pytest

from experiments.presets import PRESETS
from models.attention.visibility import Chunked, Full, Sliding
from models.config import LayerConfig
from models.positions import Rotary
from models.positions.hugging_face import rotary_from_hugging_face
from models.positions.temperature import Llama4Temperature
from tests.conformance.layer import GROUPS, HEADS, LENGTH, SIZE, WIDTH, by_module, weights
from tests.conformance.rows import cases, names
from tests.models.samples import random

# A layer of Llama under each rope_type whose frequencies are the same for all queries of a text.

MAXIMUM = 64  # more than LENGTH: beyond it, one list of frequencies for a whole text is not one for each query
ROPE = {
    "default": {},
    "linear": {"factor": 3.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
    "longrope": {
        "factor": 4.0,
        "original_max_position_embeddings": MAXIMUM,
        "short_factor": [1.0, 1.5, 2.0, 2.5],
        "long_factor": [2.0, 3.0, 4.0, 5.0],
    },
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}


def llama_layer(parameters: dict) -> np.ndarray:
    """What the attention of transformers' Llama makes of the weights and the input that `by_module` has."""
    import torch
    from transformers.models.llama import modeling_llama as llama

    config = llama.LlamaConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        num_key_value_heads=GROUPS,
        head_dim=SIZE,
        max_position_embeddings=MAXIMUM,
        rope_parameters=dict(parameters),
        attn_implementation="eager",
    )
    layer = llama.LlamaAttention(config, 0)
    for name, kernel in ((name, np.array(one["kernel"])) for name, one in weights().items()):
        matrix = kernel.reshape(-1, WIDTH) if name == "output" else kernel.reshape(WIDTH, -1)
        getattr(layer, f"{name[0]}_proj").weight.data = torch.tensor(matrix.T)
    x = torch.tensor(np.array(random(1, LENGTH, WIDTH, seed=4)))
    mask = torch.full((LENGTH, LENGTH), -torch.inf).triu(1)[None, None]
    with torch.no_grad():
        turns = llama.LlamaRotaryEmbedding(config)(x, torch.arange(LENGTH)[None])
        return layer(x, turns, mask)[0][0].numpy()


@pytest.mark.conformance("position rope", reference="transformers Llama attention, live")
@pytest.mark.parametrize("kind", names("rope_type", ROPE, "transformers Llama attention, live"))
def test_layer_of_llama(conforms, kind):
    pytest.importorskip("torch")
    pytest.importorskip("transformers", minversion="5")
    parameters = {"rope_type": kind, "rope_theta": 500.0, **ROPE[kind]}
    got = by_module(rotary_from_hugging_face(parameters, SIZE, MAXIMUM))
    conforms(got, llama_layer(parameters), tolerance=1e-5)


# Mixtures: of each layer its rotary base (0: none), window, chunk, and the temperature's strength and step.

LAYERS = 12


def by_preset(name: str) -> list[list[float]]:
    pattern = PRESETS[name]()

    def numbers(layer: LayerConfig) -> list[float]:
        base = layer.position.base if isinstance(layer.position, Rotary) else 0.0
        window = layer.span.window if isinstance(layer.span, Sliding) else 0
        chunk = layer.span.chunk if isinstance(layer.span, Chunked) else 0
        assert isinstance(layer.span, Sliding | Chunked | Full | None)
        growth = layer.temperature
        temperature = [growth.strength, growth.floor_length] if isinstance(growth, Llama4Temperature) else [0, 0]
        return [base, window, chunk, *temperature]

    return [numbers(pattern[i % len(pattern)]) for i in range(LAYERS)]


def by_transformers(name: str) -> list[list[float]]:
    """From the default configurations, but for the published numbers that those do not have."""
    import transformers

    classes = {"irope": "Llama4TextConfig", "smollm3": "SmolLM3Config", "gemma3": "Gemma3TextConfig"}
    published = {"smollm3": {"rope_parameters": {"rope_type": "default", "rope_theta": 5e4}}}
    published |= {"gemma3": {"sliding_window": 1024}}
    config = getattr(transformers, classes[name])(num_hidden_layers=LAYERS, **published.get(name, {}))
    found = []
    for i, kind in enumerate(config.layer_types):
        rope = config.rope_parameters.get(kind, config.rope_parameters)
        rotary = getattr(config, "no_rope_layers", [1] * LAYERS)[i]  # 1 where a layer has positions
        window = config.sliding_window if kind == "sliding_attention" else 0
        chunk = config.attention_chunk_size if kind == "chunked_attention" else 0
        tuned = not rotary and getattr(config, "attn_temperature_tuning", False)
        temperature = [config.attn_scale, config.floor_scale] if tuned else [0, 0]
        found.append([rope["rope_theta"] if rotary else 0, window, chunk, *temperature])
    return found


MIXTURES = {
    "irope": (
        ([[5e5, 0, 8192, 0, 0]] * 3 + [[0, 0, 0, 0.1, 8192]]) * 3,
        "Llama 4's released configuration: rope, chunks, temperature",
    ),
    "smollm3": (([[5e4, 0, 0, 0, 0]] * 3 + [[0] * 5]) * 3, "SmolLM3's report: no positions every fourth layer"),
    "gemma3": (
        ([[1e4, 1024, 0, 0, 0]] * 5 + [[1e6, 0, 0, 0, 0]]) * 2,
        "Gemma 3's report, sections 2 and 2.1: 5 to 1, two bases",
    ),
}


@pytest.mark.parametrize(
    ("name", "wanted"), cases("preset", {name: (name, *published) for name, published in MIXTURES.items()})
)
def test_mixtures_as_published(conforms, name, wanted):
    conforms(by_preset(name), wanted, tolerance=0)


@pytest.mark.parametrize("name", names("preset", MIXTURES, "transformers default configurations, live"))
def test_mixtures_of_transformers(conforms, name):
    pytest.importorskip("torch")
    pytest.importorskip("transformers", minversion="5")
    conforms(by_preset(name), by_transformers(name), tolerance=0)

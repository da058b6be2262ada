"""Layers that differ in how they know positions and in what they see, mixed as published models mix them.

    ./launch.sh run experiments/configs/mixtures.py
    ./launch.sh run experiments/configs/mixtures.py:gemma3

Decoders of twelve layers with the patterns of Llama 4, SmolLM3 and Gemma 3, and one of rotary positions alone, are
trained on windows of 128 tokens and evaluated in windows of up to 2048. The published numbers of tokens are divided to
suit: chunks and windows are half of a training window. Gemma 3 is extended as it was: 200 steps at four times its
length, with the frequencies of its global layers divided by 8.

About twenty minutes on two CPU cores. Expect the mixtures, most of whose layers never see a distance beyond training,
to lose less than rotary positions alone.
"""

from typing import Any

from experiments.configs import baseline
from experiments.presets import PRESETS, gemma3, irope, plain_pattern, smollm3
from models.errors import require_choice

LENGTH = 128
# By the name of its preset, the points of each mixture.
POINTS: dict[str, list[dict[str, Any]]] = {
    "irope": [{"label": "irope", "model.pattern": plain_pattern(irope(chunk=LENGTH // 2))}],
    "smollm3": [{"label": "smollm3", "model.pattern": plain_pattern(smollm3())}],
    "gemma3": [
        {"label": "gemma3", "model.pattern": plain_pattern(gemma3(window=LENGTH // 2))},
        {
            "label": "gemma3, extended",
            "from": "gemma3",
            "model.pattern": plain_pattern(gemma3(window=LENGTH // 2, factor=8.0)),
            "train.length": 4 * LENGTH,
            "train.batch_size": 2,
            "train.steps": 200,
            "optimizer.learning_rate": 1e-3,
            "schedule.warmup": 20,
        },
    ],
}


def get_config(mixture=None):
    if mixture is not None:
        require_choice("mixture", mixture, PRESETS)
    config = baseline.get_config()
    config.name = "mixtures" if mixture is None else f"mixtures_{mixture}"
    config.title = "Do mixed layers reach further?"
    config.description = (
        "Decoders whose layers differ in how they know positions and in what they see, as published models mix them, "
        f"trained on windows of {LENGTH} tokens."
    )
    config.model.layers = 12  # holds every pattern whole
    config.train.length = LENGTH
    config.train.steps = 1000
    config.evaluation.scalings = ()
    return config


def get_sweep(mixture=None):
    if mixture is not None:
        return POINTS[mixture]
    return [{"label": "rope"}, *(point for points in POINTS.values() for point in points)]

"""The sizes that the larger studies come in: one to see that everything runs, one for two cores, one for a large GPU.

A configuration file that has them imports SCALES and takes a scale's name as the argument of its get_config and
get_sweep: `FILE.py:tiny`, or `--config.scale=tiny`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_collections

from experiments.config import StudyConfig
from experiments.overrides import apply_overrides

# Every installation has these; with the standard library, about 30 MB of text.
PACKAGES = ("flax", "jax", "matplotlib", "numpy", "optax", "orbax")


@dataclass(frozen=True)
class Scale:
    """A study's size. length: tokens a row in training. reach: the longest evaluation, in training lengths.

    adaptation_steps: of a model that is adapted to a greater length. fields: dotted paths to what else differs from the
    baseline's configuration.
    """

    length: int = 128
    reach: int = 16
    adaptation_steps: int = 200
    fields: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, config: ml_collections.ConfigDict) -> None:
        """Gives a configuration this size, evaluated at every doubling of the training length."""
        apply_overrides(StudyConfig, config, self.fields)
        config.train.length = self.length
        config.evaluation.lengths = tuple(self.length * 2**doublings for doublings in range(self.reach.bit_length()))

    @property
    def longest(self) -> int:
        """Tokens of the longest window that is evaluated."""
        return self.length * self.reach


SCALES = {
    "tiny": Scale(
        length=32,
        reach=4,
        adaptation_steps=10,
        fields={
            "model.layers": 2,
            "model.width": 32,
            "model.heads": 2,
            "tokenizer.vocabulary_size": 512,
            "train.steps": 40,
            "train.evaluate_every": 20,
            "train.evaluation_batches": 1,
            "schedule.warmup": 5,
            "checkpoint.every": 20,
            "evaluation.documents": 2,
            "evaluation.tokens_per_document": 512,
            "evaluation.final_tokens": 16,
            "evaluation.resamples": 100,
        },
    ),
    "small": Scale(),
    # 34 million parameters, 210 million tokens.
    "large": Scale(
        length=512,
        fields={
            "model.layers": 8,
            "model.width": 512,
            "model.heads": 8,
            "model.dtype": "bfloat16",
            "model.rematerialize": "none",
            "tokenizer.vocabulary_size": 16384,
            "data.corpus.name": "python",
            "data.corpus.packages": PACKAGES,
            "train.batch_size": 64,
            "train.steps": 6400,
            "train.evaluate_every": 400,
            "optimizer.learning_rate": 1e-3,
            "schedule.warmup": 300,
            "checkpoint.every": 800,
            "evaluation.tokens_per_document": 16384,
            "evaluation.batch_tokens": 65536,
        },
    ),
}

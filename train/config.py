"""The configuration of one run: everything that decides what is trained, and so what the run is called."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from models.config import ModelConfig
from models.errors import invalid, require
from models.positions.index import Randomized
from train.checkpoints import CheckpointConfig
from train.configuration import to_plain
from train.data import DataConfig
from train.initial import InitialConfig
from train.optimizers import Optimizer
from train.optimizers.adamw import AdamW
from train.provenance import hash_of
from train.schedules import Cosine, Schedule
from train.sharding import ShardingConfig
from train.tokenizers import TokenizerRecipe
from train.tokenizers.byte_bpe import ByteBPE


@dataclass(frozen=True)
class TrainingConfig:
    """length: tokens a row. batch_size: rows a step, over all devices. accumulation: parts a step is computed in.

    z_loss: weight of (log Z)² per token (PaLM, section 5); 0 is off. log_every, evaluate_every: steps between lines of
    metrics and between looks at held-out text, which take `evaluation_batches` batches.
    watch_layers: whether lines of metrics hold the size of activations and gradients layer by layer.
    """

    length: int = 128
    batch_size: int = 32
    steps: int = 300
    accumulation: int = 1
    z_loss: float = 0.0
    log_every: int = 10
    evaluate_every: int = 100
    evaluation_batches: int = 4
    watch_layers: bool = False

    def __post_init__(self):
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if item.name == "z_loss":
                require(value >= 0, item.name, value, "at least 0 (0 is off)")
            elif item.name != "watch_layers":
                require(value >= 1, item.name, value, "at least 1")
        require(
            self.batch_size % self.accumulation == 0,
            "accumulation",
            self.accumulation,
            f"a divisor of batch_size = {self.batch_size}",
        )


@dataclass(frozen=True)
class RunConfig:
    """One training run."""

    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    tokenizer: TokenizerRecipe = field(default_factory=ByteBPE)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainingConfig = field(default_factory=TrainingConfig)
    optimizer: Optimizer = field(default_factory=AdamW)
    schedule: Schedule = field(default_factory=Cosine)
    sharding: ShardingConfig = field(default_factory=ShardingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    initial: InitialConfig = field(default_factory=InitialConfig)

    def __post_init__(self):
        require(0 <= self.seed < 2**32, "seed", self.seed, "at least 0 and below 4294967296")
        self.schedule.build(self.optimizer.learning_rate, self.train.steps)  # refuses what does not fit
        self.filled_model(vocabulary_size=1).require_length("train.length", self.train.length, training=True)
        for index in range(len(self.model.pattern)):
            span = self.model.layer_span(index)
            why = f"{span.name!r} shows tokens what they are to predict, and a run scores them all"
            require(span.is_causal(), "model.span", span.name, f"a span that sees nothing later: {why}")
        # In short documents only the smallest of the drawn positions would be trained.
        fits = self.data.packing != "documents" or not isinstance(self.model.drawn_index(), Randomized)
        allowed = "'windows' under position.index.name = 'randomized', which draws for whole rows"
        require(fits, "data.packing", self.data.packing, allowed)

    def filled_model(self, vocabulary_size: int) -> ModelConfig:
        """The model with what the run knows in place of None: the vocabulary, a table's and a scaling's length.

        Raises InvalidInput where a stated vocabulary is smaller than the tokenizer's.
        """
        stated = self.model.vocabulary_size
        if stated is not None and stated < vocabulary_size:
            raise invalid("model.vocabulary_size", stated, f"at least the tokenizer's {vocabulary_size}, or None")
        return fill_lengths(self.model, self.train.length).replace(vocabulary_size=stated or vocabulary_size)


# Fields of the training that change how a run is watched, not what it computes.
WATCHING = ("log_every", "evaluate_every", "evaluation_batches", "watch_layers")


def run_id(config: RunConfig) -> str:
    """A run's name: the hash of its resolved configuration, without what only changes how it is watched or saved.

    Of the run that it starts from, only that one's own name counts, not where its folder is.
    """
    values = to_plain(config, RunConfig)
    del values["checkpoint"], values["initial"]
    if config.initial.run is not None:
        values["initial"] = config.initial.identity()
    for watching in WATCHING:
        del values["train"][watching]
    return hash_of(values)


def fill_lengths(model: ModelConfig, length: int) -> ModelConfig:
    """The model with `length` where a scheme's table, or a scaling's or temperature's original length is None."""

    def filled(part: Any) -> Any:
        return None if part is None else _fill(part, length)

    pattern = tuple(
        dataclasses.replace(layer, position=filled(layer.position), temperature=filled(layer.temperature))
        for layer in model.pattern
    )
    return model.replace(
        position=_fill(model.position, length), temperature=_fill(model.temperature, length), pattern=pattern
    )


def _fill(value, length: int):
    """A scheme or temperature with its unset lengths filled, in nested alternatives (a scaling) too."""
    changes = {}
    for item in dataclasses.fields(value):
        inner = getattr(value, item.name)
        if dataclasses.is_dataclass(inner):
            changes[item.name] = _fill(inner, length)
        elif item.name in ("length", "original_length") and inner is None:
            changes[item.name] = length
    return dataclasses.replace(value, **changes)

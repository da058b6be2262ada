"""A run's configuration: what it is called, what it fills in, what it refuses."""

import dataclasses

import pytest

from experiments.config import LauncherConfig, StudyConfig
from experiments.evaluation.config import EvaluationConfig
from models.attention.visibility import Prefix
from models.config import LayerConfig, ModelConfig
from models.errors import InvalidInput
from models.positions.index import Randomized, Shifted
from models.positions.learned import Learned
from models.positions.rotary import Rotary
from models.positions.scaling.yarn import YaRN
from train.checkpoints import CheckpointConfig
from train.config import RunConfig, TrainingConfig, fill_lengths, run_id
from train.data import DataConfig
from train.initial import InitialConfig
from train.optimizers.lion import Lion
from train.schedules import Linear
from train.sharding import MeshConfig, ShardingConfig
from train.tokenizers.byte import Byte

RUN = RunConfig()
RANDOMIZED = Rotary(index=Randomized(maximum=1024))


def changed(**changes) -> RunConfig:
    return dataclasses.replace(RUN, **changes)


def test_equal_configurations_have_equal_names():
    assert run_id(RunConfig()) == run_id(RunConfig())
    assert len(run_id(RUN)) == 12


@pytest.mark.parametrize(
    "other",
    [
        changed(seed=1),
        changed(model=ModelConfig(layers=2)),
        changed(model=ModelConfig(position=Rotary(base=500.0))),
        changed(tokenizer=Byte()),
        changed(data=DataConfig(packing="documents")),
        changed(train=TrainingConfig(steps=301)),
        changed(train=TrainingConfig(z_loss=1e-4)),
        changed(optimizer=Lion()),
        changed(schedule=Linear()),
        changed(sharding=ShardingConfig(MeshConfig(fsdp=2))),
        changed(initial=InitialConfig("0123456789ab")),
    ],
)
def test_what_changes_the_weights_changes_the_name(other):
    assert run_id(other) != run_id(RUN)


def test_how_a_run_is_watched_saved_evaluated_or_launched_does_not_change_its_name():
    watched = TrainingConfig(log_every=1, evaluate_every=7, evaluation_batches=2, watch_layers=True)
    assert run_id(changed(train=watched, checkpoint=CheckpointConfig(every=7, keep=1))) == run_id(RUN)
    study = StudyConfig(
        name="other", title="t", evaluation=EvaluationConfig(lengths=(8,)), launcher=LauncherConfig(workers=3)
    )
    assert run_id(study) == run_id(StudyConfig()) == run_id(RUN)


def test_where_the_run_lies_that_one_starts_from_does_not_change_its_name():
    beside, elsewhere, other = (
        changed(initial=InitialConfig(run)) for run in ("0123456789ab", "elsewhere/runs/0123456789ab", "ba9876543210")
    )
    assert run_id(beside) == run_id(elsewhere) != run_id(other)


def test_unset_lengths_are_the_training_length_in_nested_alternatives_too():
    yarn = Rotary(scaling=YaRN(factor=2.0))
    model = ModelConfig(layers=2, position=Learned(), pattern=(LayerConfig(), LayerConfig(position=yarn)))
    filled = fill_lengths(model, 64)
    assert filled.position == Learned(length=64)
    assert filled.pattern[1].position.scaling == YaRN(factor=2.0, original_length=64)
    assert filled.pattern[0].position is None
    stated = ModelConfig(position=Rotary(scaling=YaRN(factor=2.0, original_length=32)))
    assert fill_lengths(stated, 64) == stated


def test_the_vocabulary_is_the_tokenizers_or_a_larger_one():
    assert RUN.filled_model(300).vocabulary_size == 300
    assert changed(model=ModelConfig(vocabulary_size=320)).filled_model(300).vocabulary_size == 320
    with pytest.raises(InvalidInput, match=r"model.vocabulary_size = 256 is not allowed.*at least the tokenizer's 257"):
        changed(model=ModelConfig(vocabulary_size=256)).filled_model(257)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": -1}, "seed = -1"),
        ({"seed": 2**32}, "seed = 4294967296"),
        ({"train": TrainingConfig(steps=100)}, "schedule.warmup = 100 is not allowed; it must be below the run's 100"),
        (
            {"model": ModelConfig(position=Learned(length=64))},
            "train.length = 128 is not allowed; it must be at most 64",
        ),
        (
            {"model": ModelConfig(layers=2, pattern=(LayerConfig(), LayerConfig(span=Prefix(8))))},
            "model.span = 'prefix' is not allowed; it must be a span that sees nothing later",
        ),
        (
            {"model": ModelConfig(position=RANDOMIZED), "data": DataConfig(packing="documents")},
            "data.packing = 'documents' is not allowed; it must be 'windows' under position.index.name = 'randomized'",
        ),
        (
            {
                "model": ModelConfig(pattern=(LayerConfig(), LayerConfig(position=RANDOMIZED))),
                "data": DataConfig(packing="documents"),
            },
            "data.packing = 'documents' is not allowed",
        ),
    ],
)
def test_fields_that_do_not_fit_each_other_are_refused(changes, words):
    with pytest.raises(InvalidInput, match=words):
        changed(**changes)


def test_other_draws_go_with_documents_and_random_positions_with_windows():
    changed(model=ModelConfig(position=Rotary(index=Shifted())), data=DataConfig(packing="documents"))
    changed(model=ModelConfig(position=RANDOMIZED))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "steps = 0"),
        ({"length": 0}, "length = 0"),
        ({"z_loss": -1.0}, "z_loss = -1.0 is not allowed; it must be at least 0"),
        (
            {"batch_size": 6, "accumulation": 4},
            "accumulation = 4 is not allowed; it must be a divisor of batch_size = 6",
        ),
    ],
)
def test_training_refuses_what_cannot_be(changes, words):
    with pytest.raises(InvalidInput, match=words):
        TrainingConfig(**changes)

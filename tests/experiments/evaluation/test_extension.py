"""Rules by the number of times a context is extended."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.evaluation import checkpoint, suite
from experiments.evaluation.checkpoint import Checkpoint, evaluate_checkpoint, series_of
from experiments.evaluation.config import EvaluationConfig
from experiments.evaluation.extension import extended, takes_factor
from experiments.evaluation.suite import Text
from models.config import LayerConfig, ModelConfig
from models.mixers import LinearMixer
from models.positions import DynamicNTK, NoPosition, Rotary, Scaling, YaRN
from models.positions.index import Clipped
from models.positions.scaling import LongRoPE
from models.positions.temperature import DroPETemperature, LogN
from train.config import RunConfig, TrainingConfig, fill_lengths

RULES = [name for name in Scaling.registry if name != "none"]


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_plain_where_nothing_is_extended_and_another_where_it_is(name):
    model = ModelConfig(position=Rotary(scaling=extended(name, 1.0)))
    plain = Rotary().frequencies(model.head_width)
    once, four = (
        fill_lengths(model.replace(position=Rotary(scaling=extended(name, factor))), 16).position
        for factor in (1.0, 4.0)
    )
    assert once.frequencies(model.head_width, 16) == pytest.approx(plain, rel=1e-12)
    assert once.scaling.amplitude() == 1
    assert four.frequencies(model.head_width, 64)[-1] < 0.9 * plain[-1]


def test_a_rule_that_follows_the_length_takes_no_factor():
    assert extended("dynamic_ntk", 4.0) == DynamicNTK() and not takes_factor("dynamic_ntk")
    assert extended("yarn", 4.0) == YaRN(factor=4.0) and takes_factor("yarn")
    assert extended("longrope", 4.0) == LongRoPE(factor=4.0, long_factor=(4.0,)) and takes_factor("longrope")


def test_a_checkpoint_is_read_under_every_rule_at_the_factor_of_each_length():
    evaluation = EvaluationConfig(scalings=tuple(RULES))
    plain, *others = series_of(ModelConfig(vocabulary_size=8), "rope", 128, evaluation)
    assert plain.model_at(512).position == Rotary()
    assert [series.label for series in others] == [f"rope · {name}" for name in RULES]
    for name, series in zip(RULES, others, strict=True):
        scaling = series.model_at(512).position.scaling
        assert scaling.name == name and getattr(scaling, "original_length", 128) == 128
        assert scaling.factor == (4.0 if takes_factor(name) else 1.0)
        assert series.model_at(64).position.scaling.factor == 1.0
        factor = series.override["model.position.scaling.factor"]
        assert factor == ("length / training length" if takes_factor(name) else "each query's own length")


def test_a_checkpoint_without_positions_is_read_under_the_temperature_of_each_length():
    evaluation = EvaluationConfig(scalings=("yarn", "drope"))
    dropped = ModelConfig(vocabulary_size=8, position=NoPosition())
    plain, sharper = series_of(dropped, "dropped", 128, evaluation)
    assert plain.model_at(512) == dropped and sharper.label == "dropped · temperature"
    assert [sharper.model_at(length).temperature for length in (64, 512)] == [
        DroPETemperature(factor=1.0),
        DroPETemperature(factor=4.0),
    ]
    assert sharper.override["model.temperature.name"] == "drope"
    assert len(series_of(dropped.replace(temperature=LogN(128)), "log n", 128, evaluation)) == 1
    assert [one.label for one in series_of(ModelConfig(), "rope", 128, evaluation)] == ["rope", "rope · yarn"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pattern": (LayerConfig(mixer=LinearMixer()),)}, "mixer.name = 'linear'"),
        ({"position": Rotary(index=Clipped(4))}, "position.index.name = 'clipped'"),
    ],
)
def test_a_scaling_that_the_model_cannot_take_is_undefined_and_the_others_are_measured(
    changes, words, tmp_path, monkeypatch
):
    def score(model, parameters, documents, windows, length, batch_tokens):
        return [np.ones(window.stop - window.scored, np.float32) for window in windows]

    text = Text([np.arange(21, dtype=np.int32)], [np.full(20, 2)], ("a",))
    monkeypatch.setattr(suite, "score_windows", score)
    monkeypatch.setattr(checkpoint, "_text", lambda *_: text)
    monkeypatch.setattr(checkpoint, "load_tokenizer", lambda _: SimpleNamespace(vocabulary_size=8))
    model = ModelConfig(vocabulary_size=8, layers=1, width=16, heads=2, **changes)
    config = RunConfig(model=model, train=TrainingConfig(length=8))
    evaluation = EvaluationConfig(lengths=(8, 16), scalings=("dynamic_ntk", "linear"), final_tokens=4, resamples=10)
    opened = Checkpoint(tmp_path, config, model, {}, config.train.steps)
    evaluate_checkpoint(opened, series_of(model, "rope", 8, evaluation), evaluation, lambda line: None)
    tables = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "evaluation").iterdir()}
    statuses = {name: {row["status"] for row in table["rows"]} for name, table in tables.items()}
    assert statuses == {"rope": {"ok"}, "rope-dynamic-ntk": {"undefined"}, "rope-linear": {"ok"}}
    assert words in tables["rope-dynamic-ntk"]["rows"][0]["reason"]
    assert checkpoint.all_measured(tmp_path, config, "rope", evaluation)

"""The shipped configurations: each resolves, at every scale, to runs that fit their own lengths."""

from pathlib import Path

import jax
import pytest

from experiments.scales import SCALES
from experiments.study import load_study
from models.accounting import active_parameter_count, parameter_count
from models.errors import InvalidInput
from models.placements import Placement
from models.positions import PositionScheme, Scaling
from models.positions.none import NoPosition
from models.transformer import init_parameters

CONFIGS = Path(__file__).resolve().parents[2] / "experiments" / "configs"
SHIPPED = sorted(path.stem for path in CONFIGS.glob("[a-z]*.py"))
SCALED = ("context_extension", "norm_placement", "positions")


def load(name, tmp_path, **overrides):
    stem, _, argument = name.partition(":")
    source = f"{CONFIGS / stem}.py" + (f":{argument}" if argument else "")
    return load_study(source, overrides, tmp_path)


@pytest.mark.parametrize("name", [*SHIPPED, *(f"{name}:{scale}" for name in SCALED for scale in SCALES)])
def test_every_configuration_resolves_under_a_name_of_its_own(name, tmp_path):
    study = load(name, tmp_path)
    stem, _, scale = name.partition(":")
    assert study.config.name == (stem if scale in ("", "small") else f"{stem}_{scale}")
    assert study.config.title and study.config.description
    assert min(study.config.evaluation.lengths) == study.config.train.length
    assert all(point.config.train.steps >= 10 for point in study.points)


def test_extension_adapts_under_every_rule_from_one_run(tmp_path):
    study = load("context_extension", tmp_path)
    base, *others = study.points
    assert all(study.start_of(point) == base for point in others)
    rules = [name for name in Scaling.registry if name != "none"]
    assert base.config.evaluation.scalings == tuple(rules)
    adapted = {point.label: point.config for point in others}
    assert list(adapted) == ["none, adapted", *(f"{rule}, adapted" for rule in rules), "drope"]
    for rule in ["none", *rules]:
        config = adapted[f"{rule}, adapted"]
        scaling = config.model.position.scaling
        assert scaling.name == rule and config.evaluation.scalings == ()
        assert config.train.length == 512 and config.train.length * config.train.batch_size == 1024
        assert getattr(scaling, "original_length", 128) == 128 and config.train.steps == 200
    assert adapted["drope"].model.position == NoPosition() and adapted["drope"].train.length == 128
    assert adapted["drope"].evaluation.scalings == ("drope",)


def test_every_scheme_is_trained_alike_with_three_seeds(tmp_path):
    study = load("positions", tmp_path)
    labels = [point.label for point in study.points]
    swept = {*PositionScheme.registry} - {"distance"} | {
        f"{scheme}, {index}" for scheme in ("sinusoidal", "rope") for index in ("shifted", "randomized")
    }
    assert set(labels) == swept and all(labels.count(label) == 3 for label in swept)
    assert {point.seed for point in study.points if point.label == "alibi"} == {0, 1, 2}
    for point in study.points:
        # Beyond a table, evaluation says so; but what is drawn in training covers it.
        if point.config.model.position.index.draws:
            point.config.filled_model(1).require_length("length", max(point.config.evaluation.lengths))


def test_every_placement_is_trained_alike_at_every_setting(tmp_path):
    points = load("norm_placement", tmp_path).points
    assert {point.config.model.norm.placement.name for point in points} == set(Placement.registry)
    settings = {(point.config.model.layers, point.config.optimizer.learning_rate) for point in points}
    assert settings == {(4, 1e-3), (4, 4e-3), (64, 1e-3), (64, 4e-3)}
    assert len(points) == len(set(Placement.registry)) * 4 * 2 and {point.seed for point in points} == {0, 1}
    assert all(point.config.train.watch_layers for point in points)
    assert max(point.config.model.layers for point in load("norm_placement:large", tmp_path).points) == 64


def test_a_mixture_runs_alone(tmp_path):
    assert [point.label for point in load("mixtures:gemma3", tmp_path).points] == ["gemma3", "gemma3, extended"]
    assert [point.label for point in load("mixtures:irope", tmp_path).points] == ["irope"]
    with pytest.raises(InvalidInput, match="mixture = 'gemma2' is not allowed; it must be one of irope, smollm3"):
        load("mixtures:gemma2", tmp_path)
    with pytest.raises(InvalidInput, match=r"config\.scale = 'large' is not allowed: \S+ is of one scale"):
        load("mixtures", tmp_path, scale="large")


def test_experts_are_compared_at_equal_active_parameters(tmp_path):
    models = {point.label: point.config.filled_model(2048) for point in load("experts", tmp_path).points}
    assert {label: model.experts.name for label, model in models.items()} == {
        "dense": "none",
        "token choice": "token_choice",
        "dropless": "dropless",
    }
    trees = {label: jax.eval_shape(lambda m=model: init_parameters(m, 0)) for label, model in models.items()}
    active = {label: active_parameter_count(model, trees[label]) for label, model in models.items()}
    routers = 4 * 128 * 8
    assert active["token choice"] == active["dropless"] == active["dense"] + routers
    assert parameter_count(trees["dropless"]) == active["dropless"] + 4 * 6 * (2 * 128 * 256)

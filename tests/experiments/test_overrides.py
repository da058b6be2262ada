"""Overrides by dotted paths: what is set, what an alternative's name brings, and what is refused in which words."""

import dataclasses

import ml_collections
import pytest

from experiments.config import StudyConfig
from experiments.overrides import apply_overrides, changed
from models.attention.visibility import And, Chunked, GlobalTokens, Or, Sinks, Sliding
from models.config import LayerConfig
from models.errors import InvalidInput
from models.positions import PositionScheme
from models.positions.rotary import Rotary
from models.positions.scaling.yarn import YaRN
from models.positions.t5 import T5
from train.configuration import from_config_dict, to_config_dict
from train.corpora import Files
from train.tokenizers.byte import Byte
from train.tokenizers.byte_bpe import ByteBPE


def resolved(start: StudyConfig | None = None, **overrides) -> StudyConfig:
    """The study under overrides; in their names, __ stands for a dot."""
    opened = to_config_dict(start or StudyConfig())
    apply_overrides(StudyConfig, opened, {path.replace("__", "."): value for path, value in overrides.items()})
    return from_config_dict(StudyConfig, ml_collections.ConfigDict(opened))


def refusal(**overrides) -> str:
    with pytest.raises(InvalidInput) as caught:
        resolved(**overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_values_are_read_as_their_fields_ask():
    config = resolved(
        train__steps="500",
        optimizer__learning_rate="1",
        model__kv_heads="2",
        model__dtype="bfloat16",
        name="123",
        evaluation__lengths="(16, 32)",
    )
    assert config.train.steps == 500
    assert config.optimizer.learning_rate == 1.0 and isinstance(config.optimizer.learning_rate, float)
    assert config.model.kv_heads == 2 and config.model.dtype == "bfloat16"
    assert config.name == "123" and config.evaluation.lengths == (16, 32)
    assert resolved(config, model__kv_heads="None").model.kv_heads is None


@pytest.mark.parametrize(
    ("text", "value"), [("yarn", ("yarn",)), ("yarn, linear", ("yarn", "linear")), ("['ntk']", ("ntk",)), ("()", ())]
)
def test_lists_need_no_brackets(text, value):
    assert resolved(evaluation__scalings=text).evaluation.scalings == value
    assert resolved(evaluation__lengths="64").evaluation.lengths == (64,)
    assert resolved(evaluation__lengths="64,128").evaluation.lengths == (64, 128)


def test_a_name_brings_its_alternatives_fields():
    assert resolved(model__position__name="t5", model__position__buckets="8").model.position == T5(buckets=8)
    # In whatever order, and several levels at once.
    position = resolved(
        model__position__scaling__factor="4", model__position__scaling__name="yarn", model__position__name="rope"
    ).model.position
    assert position == Rotary(scaling=YaRN(factor=4.0))
    assert "has the fields name, index, buckets" in refusal(model__position__name="t5", model__position__base="5.0")


def test_fields_that_both_alternatives_have_keep_what_was_changed():
    kept = resolved(optimizer__name="lion", optimizer__clip="0.5").optimizer
    assert kept.name == "lion" and kept.clip == 0.5
    # The rate that was left at AdamW's default becomes Lion's own.
    assert kept.learning_rate == resolved(optimizer__name="lion").optimizer.learning_rate
    before = resolved(optimizer__clip="0.25", optimizer__b2="0.5")
    assert resolved(before, optimizer__name="adafactor").optimizer.clip == 0.25


def test_an_alternative_may_have_fields_without_a_default():
    assert resolved(data__corpus__name="files", data__corpus__path="mine").data.corpus == Files("mine")
    assert refusal(data__corpus__name="files") == "config.data.corpus.path is missing; it has no default"
    assert resolved(resolved(data__corpus__name="files", data__corpus__path="x"), data__corpus__name="books")


@pytest.mark.parametrize("brackets", ["({}, {})", "[{}, {}]"])
def test_a_layer_pattern_is_written_as_plain_dictionaries(brackets):
    rope = "{'position': {'name': 'rope', 'scaling': {'name': 'yarn', 'factor': 2.0}}, 'span': {'name': 'full'}}"
    config = resolved(model__pattern=brackets.format(rope, "{'position': {'name': 'none'}}"))
    first, second = config.model.pattern
    assert first.position == Rotary(scaling=YaRN(factor=2.0))
    assert second.position == PositionScheme.registry["none"]() and second.span is None
    assert resolved(config, seed="3").model.pattern == config.model.pattern


def test_spans_are_combined_as_plain_dictionaries():
    near = "{'name': 'sliding', 'window': 8}"
    config = resolved(model__span__name="and", model__span__of=f"[{near}, {{'name': 'chunked', 'chunk': 32}}]")
    assert config.model.span == And((Sliding(8), Chunked(32)))
    either = f"{{'name': 'or', 'of': ({near}, {{'name': 'global_tokens'}})}}"
    nested = resolved(config, model__span__name="or", model__span__of=f"[{either}, {{'name': 'sinks', 'sinks': 2}}]")
    assert nested.model.span == Or((Or((Sliding(8), GlobalTokens())), Sinks(sinks=2)))
    assert resolved(model__pattern=f"({{'span': {either}}},)").model.pattern[0].span == nested.model.span.of[0]
    # One member needs no brackets; another combination keeps the members chosen before.
    assert resolved(model__span__of=near, model__span__name="or").model.span == Or((Sliding(8),))
    assert resolved(config, model__span__name="or").model.span == Or((Sliding(8), Chunked(32)))
    assert resolved(config, seed="3").model.span == config.model.span
    assert changed(StudyConfig(), config) == {
        "model.span.name": "and",
        "model.span.of": [{"name": "sliding", "window": 8}, {"name": "chunked", "chunk": 32}],
    }


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            {"model__positon__name": "alibi"},
            "config.model.positon.name is unknown (did you mean position?); config",
        ),
        ({"modle": "1"}, "config.modle is unknown (did you mean model?); config has the fields seed, model, tokenizer"),
        ({"model__layers__x": "1"}, "config.model.layers.x is unknown; config.model.layers has no fields"),
        ({"model__layers": "2.5"}, "config.model.layers = 2.5 is not allowed; it must be of type int"),
        ({"model__layers": "True"}, "config.model.layers = True is not allowed; it must be of type int"),
        ({"model__layers": "None"}, "config.model.layers = None is not allowed; it must be a value of type int"),
        ({"train__steps": ""}, "config.train.steps = '' is not allowed; it must be of type int"),
        ({"train__steps": "0"}, "config.train.steps = 0 is not allowed; it must be at least 1"),
        (
            {"evaluation__lengths": "(1.5,)"},
            "config.evaluation.lengths[0] = 1.5 is not allowed; it must be of type",
        ),
        (
            {"model__position__name": "rop"},
            "config.model.position.name = 'rop' is not allowed; it must be one of ",
        ),
        (
            {"model__position": "alibi"},
            "a dictionary of fields; config.model.position.name may be ",
        ),
        ({"model__pattern": "({'position': {'name': 'x'}},)"}, "config.model.pattern[0].position.name = 'x' is not"),
        (
            {"model__pattern": "({'places': 1},)"},
            "config.model.pattern[0].places is unknown; config.model.pattern",
        ),
        (
            {"model__span__name": "or", "model__span__of": "()"},
            "config.model.span.of = () is not allowed; it must be a",
        ),
        (
            {"model__span__name": "or", "model__span__of": "[{'name': 'full'}, {'name': 'sliding', 'window': 0}]"},
            "config.model.span.of[1].window = 0 is not allowed; it must be at least 1",
        ),
        (
            {"model__span__name": "and", "model__span__of": "sliding, full"},
            "config.model.span.of[0] = 'sliding' is not allowed; it must be a dictionary of fields; config.model.span.",
        ),
        ({"optimizer__learning_rate": "fast"}, "config.optimizer.learning_rate = 'fast' is not allowed; it must be of"),
        ({"seed": "-1"}, "config.seed = -1 is not allowed; it must be at least 0 and below 4294967296"),
        ({"name": "a/b"}, "config.name = 'a/b' is not allowed; it must be letters, digits, - and _"),
        ({"model__heads": "3"}, "config.model.heads = 3 is not allowed; it must be a divisor of width = 128"),
    ],
)
def test_refusals_name_the_path_the_value_and_what_is_allowed(overrides, words):
    assert words in refusal(**overrides)


def test_changed_names_what_differs_and_of_another_alternative_only_what_is_not_its_default():
    before = StudyConfig()
    after = resolved(
        model__position__scaling__name="yarn",
        model__position__scaling__factor="4.0",
        tokenizer__name="byte",
        evaluation__lengths="(8, 16)",
        model__pattern="({}, {'position': {'name': 'none'}})",
    )
    assert isinstance(before.tokenizer, ByteBPE) and isinstance(after.tokenizer, Byte)
    unsaid = dict.fromkeys(field.name for field in dataclasses.fields(LayerConfig))
    assert changed(before, after) == {
        "model.position.scaling.name": "yarn",
        "model.position.scaling.factor": 4.0,
        "model.pattern": [
            unsaid,
            unsaid | {"position": {"name": "none", "index": {"name": "identity"}}},
        ],
        "tokenizer.name": "byte",
        "evaluation.lengths": [8, 16],
    }
    assert changed(before, StudyConfig()) == {}

"""Reading and writing the `rope_parameters` of Hugging Face configurations."""

import json
import math

import numpy as np
import pytest

from models.errors import InvalidInput
from models.positions.hugging_face import (
    ROPE_TYPES,
    frequencies_from_hugging_face,
    rotary_from_hugging_face,
    rotary_to_hugging_face,
)
from models.positions.index import Clipped, Interpolated, Shifted
from models.positions.rotary import Rotary
from models.positions.scaling import (
    DynamicNTK,
    FixedNTK,
    Linear,
    Llama3,
    LongRoPE,
    MixedNTK,
    NoScaling,
    NTKAware,
    NTKByParts,
    Scaling,
    YaRN,
)
from models.positions.scaling.rule import plain_frequencies
from tests.models.samples import filled

PARTIAL, PROPORTIONAL = {"share": 0.5}, {"share": 0.4, "share_rule": "proportional"}


def test_a_partial_rotary_factor_shortens_the_width():
    parameters = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.25}
    frequencies, attention_factor = frequencies_from_hugging_face(parameters, 64, 2048)
    np.testing.assert_array_equal(frequencies, plain_frequencies(500.0, 16))
    assert attention_factor == 1.0


def yarn(**parameters) -> YaRN:
    rule = rotary_from_hugging_face({"rope_type": "yarn", "rope_theta": 1e4, **parameters}, 64, 2048).scaling
    assert isinstance(rule, YaRN)
    return rule


@pytest.mark.parametrize("weights", [{"mscale": 0.7}, {"mscale_all_dim": 0.7}, {"mscale": 0.7, "mscale_all_dim": 0}])
def test_one_weight_of_the_pair_is_ignored_as_hugging_face_does(weights):
    assert yarn(factor=4.0, **weights) == yarn(factor=4.0)
    assert yarn(factor=4.0, **weights).amplitude() == pytest.approx(0.1 * math.log(4) + 1)


def test_zeros_and_none_of_yarn_are_what_hugging_face_takes_them_for():
    assert yarn(factor=4.0, beta_fast=0, beta_slow=None) == yarn(factor=4.0, beta_fast=32.0, beta_slow=1.0)
    assert not yarn(factor=4.0, truncate=None).truncate
    assert yarn(factor=4.0, attention_factor=None).attention_factor is None
    by_lengths = yarn(factor=None, original_max_position_embeddings=512)
    assert by_lengths.factor == 4.0 and by_lengths.original_length == 512


def test_original_lengths_are_by_default_the_maximum():
    lists = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    ramp = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    for parameters in ({"rope_type": "longrope", **lists}, {"rope_type": "llama3", **ramp}):
        parameters["rope_theta"] = 1e4
        assert rotary_from_hugging_face(parameters, 8, 2048).scaling.original_length == 2048
        parameters["original_max_position_embeddings"] = 512
        assert rotary_from_hugging_face(parameters, 8, 2048).scaling.original_length == 512
    longrope = rotary_from_hugging_face({"rope_type": "longrope", "rope_theta": 1e4, **lists}, 8, 2048)
    assert longrope.scaling.amplitude() == 1.0


@pytest.mark.parametrize("given, factor", [({}, 4.0), ({"factor": 16.0}, 16.0), ({"factor": None}, 4.0)])
def test_the_factor_of_longrope_is_by_default_the_ratio_of_lengths(given, factor):
    parameters = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 512, **given}
    parameters |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    frequencies, attention_factor = frequencies_from_hugging_face(parameters, 8, 2048, 513)
    np.testing.assert_array_equal(frequencies, plain_frequencies(1e4, 8) / 2)
    assert attention_factor == pytest.approx(math.sqrt(1 + math.log(factor) / math.log(512)))
    np.testing.assert_array_equal(frequencies_from_hugging_face(parameters, 8, 2048)[0], plain_frequencies(1e4, 8))


def test_older_dictionaries_call_the_type_type():
    linear = rotary_from_hugging_face({"type": "linear", "rope_theta": 1e4, "factor": 2.0}, 64, 2048)
    assert linear == Rotary(scaling=Linear(factor=2.0))
    assert rotary_from_hugging_face({"rope_theta": 5e5}, 64, 2048) == Rotary(base=5e5)


SAMPLE = {"factor": 4.0, "original_length": 64, "short_factor": (1.0, 1.2, 1.5, 2.0), "long_factor": (3.0,)}


@pytest.mark.parametrize("share", [{}, PARTIAL], ids=["whole", "partial"])
@pytest.mark.parametrize("name", Scaling.registry)
@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_what_is_written_is_read_back(name, share, factor):
    scaling = filled(Scaling.registry[name], **SAMPLE | {"factor": factor})
    scheme, head_dim = Rotary(base=5e5, scaling=scaling, **share), 8 if not share else 16
    parameters = json.loads(json.dumps(rotary_to_hugging_face(scheme, head_dim)))
    for length in (None, 64, 65, 1000):
        frequencies, attention_factor = frequencies_from_hugging_face(parameters, head_dim, 64, length)
        np.testing.assert_allclose(frequencies, scheme.frequencies(head_dim, length), rtol=1e-12)
        assert attention_factor == pytest.approx(scaling.amplitude(), rel=1e-12)


@pytest.mark.parametrize(
    "scaling",
    [
        NoScaling(),
        Linear(factor=3.0),
        DynamicNTK(factor=3.0, original_length=64),
        YaRN(factor=3.0, original_length=64, mscale=0.7, mscale_all_dim=1.0, truncate=False, beta_fast=16.0),
        YaRN(factor=3.0, original_length=64, attention_factor=1.5),
        LongRoPE(3.0, 64, (1.0, 1.5, 1.5, 2.0), (2.0, 2.0, 4.0, 8.0), 1.25),
        Llama3(factor=3.0, original_length=64, low_freq_factor=0.5),
    ],
    ids=lambda scaling: scaling.name,
)
def test_a_rule_with_a_type_of_its_own_comes_back_itself(scaling):
    scheme = Rotary(scaling=scaling, share=0.25)
    assert rotary_from_hugging_face(rotary_to_hugging_face(scheme, 32), 32, 64) == scheme


def test_rules_without_a_type_are_written_as_what_equals_them():
    def written(scaling, **share):
        return rotary_to_hugging_face(Rotary(scaling=scaling, **share), 16)

    assert written(NTKAware(factor=4.0)) == {"rope_type": "default", "rope_theta": 1e4 * 4 ** (16 / 14)}
    assert written(FixedNTK(factor=4.0)) == {"rope_type": "linear", "rope_theta": 4e4, "factor": 4 ** (1 / 8)}
    by_parts = NTKByParts(factor=4.0, original_length=64)
    assert written(by_parts) == {
        "rope_type": "llama3",
        "rope_theta": 1e4,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "low_freq_factor": 1.0,
        "high_freq_factor": 32.0,
    }
    mixed = written(MixedNTK(factor=4.0))
    assert mixed["rope_type"] == "longrope" and mixed["short_factor"] == mixed["long_factor"]
    assert mixed["long_factor"][-1] == pytest.approx(4.0) and mixed["attention_factor"] == 1.0
    paper = written(YaRN(factor=4.0, original_length=64, ramp="paper"))
    assert paper["rope_type"] == "longrope" and paper["attention_factor"] == pytest.approx(0.1 * math.log(4) + 1)


@pytest.mark.parametrize("scaling", [NoScaling(), Linear(factor=8.0), NTKAware(factor=8.0), FixedNTK(factor=8.0)])
def test_a_proportional_share_is_written_with_a_base_and_a_factor(scaling):
    scheme = Rotary(scaling=scaling, **PROPORTIONAL)
    parameters = rotary_to_hugging_face(scheme, 32)
    assert parameters["rope_type"] == "proportional" and parameters["partial_rotary_factor"] == 0.4
    frequencies, _ = frequencies_from_hugging_face(parameters, 32, 64)
    assert (frequencies > 0).tolist() == [True] * 6 + [False] * 10
    np.testing.assert_allclose(frequencies, scheme.frequencies(32), rtol=1e-12)


def test_what_cannot_be_written_is_refused():
    yarn = YaRN(factor=2.0, original_length=64)
    with pytest.raises(InvalidInput, match=r"^scaling\.name = 'yarn' with share_rule = 'proportional'"):
        rotary_to_hugging_face(Rotary(scaling=yarn, **PROPORTIONAL), 32)
    with pytest.raises(InvalidInput, match=r"^position\.scaling\.original_length = None"):
        rotary_to_hugging_face(Rotary(scaling=YaRN(factor=2.0)), 32)
    with pytest.raises(InvalidInput, match=r"^scaling\.unscaled_tokens = 4 is not allowed; it must be 0"):
        rotary_to_hugging_face(Rotary(scaling=LongRoPE(original_length=64, unscaled_tokens=4)), 32)


@pytest.mark.parametrize("index", [Interpolated(4.0), Clipped(8), Shifted(8)], ids=lambda index: index.name)
def test_an_index_transform_cannot_be_written(index):
    with pytest.raises(InvalidInput) as refused:
        rotary_to_hugging_face(Rotary(index=index), 32)
    message = f"position.index.name = {index.name!r} is not allowed; it must be identity: rope_parameters of Hugging "
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize("name", ROPE_TYPES)
def test_none_is_absent(name):
    """Of every parameter alone; but for those of yarn in which Hugging Face reads something."""
    parameters = {
        "rope_theta": 1e4,
        "rope_type": name,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "partial_rotary_factor": 0.5,
        "short_factor": [1.0] * 4,
        "long_factor": [2.0] * 4,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "truncate": False,
        "mscale": 0.7,
        "mscale_all_dim": 1.0,
        "attention_factor": 1.5,
        "type": "default",
    }

    def read(parameters):
        try:
            return rotary_from_hugging_face(parameters, 16, 256)
        except InvalidInput as error:
            return str(error)

    assert isinstance(read(parameters), Rotary)
    for parameter in parameters.keys() - ({"factor", "truncate"} if name == "yarn" else set()):
        without = {key: value for key, value in parameters.items() if key != parameter}
        assert read(parameters | {parameter: None}) == read(without), parameter


def test_unknown_types_and_missing_parameters_are_refused():
    with pytest.raises(
        InvalidInput, match=r"^rope_type = 'su' .* default, linear, dynamic, yarn, longrope, llama3, proportional$"
    ):
        frequencies_from_hugging_face({"rope_type": "su", "rope_theta": 1e4}, 64, 2048)
    with pytest.raises(InvalidInput, match=r"^rope_parameters of rope_type 'linear' have no 'factor'$"):
        frequencies_from_hugging_face({"rope_type": "linear", "rope_theta": 1e4}, 64, 2048)
    with pytest.raises(InvalidInput, match=r"^rope_parameters of rope_type 'longrope' have no 'short_factor'$"):
        frequencies_from_hugging_face({"rope_type": "longrope", "rope_theta": 1e4}, 64, 2048)
    with pytest.raises(InvalidInput, match=r"^rope_parameters of rope_type 'default' have no 'rope_theta'$"):
        frequencies_from_hugging_face({"rope_type": "default"}, 64, 2048)
    lists = {"short_factor": [1.0] * 3, "long_factor": [2.0] * 4}
    with pytest.raises(InvalidInput, match=r"^short_factor = \(1.0, 1.0, 1.0\) .* a list of 4 numbers"):
        frequencies_from_hugging_face({"rope_type": "longrope", "rope_theta": 1e4, **lists}, 8, 64)
    with pytest.raises(InvalidInput, match=r"^share = 0.35 "):
        frequencies_from_hugging_face({"rope_theta": 1e4, "partial_rotary_factor": 0.35}, 16, 64)

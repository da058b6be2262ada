"""Frequencies, slopes and buckets against values that transformers 5.23 computed."""

import json
import pathlib

import numpy as np
import pytest

from models.positions import frequencies_from_hugging_face
from models.positions.alibi import slopes
from models.positions.t5 import relative_bucket

GOLDENS = pathlib.Path(__file__).parent.parent / "goldens"
TYPES = ("default", "linear", "dynamic", "yarn")


def load(name: str):
    return json.loads((GOLDENS / name).read_text())


CASES = [case for case in load("rope_frequencies.json")["cases"] if case["parameters"]["rope_type"] in TYPES]


def test_every_case_of_the_four_types_is_there():
    kinds = [case["parameters"]["rope_type"] for case in CASES]
    assert {kind: kinds.count(kind) for kind in TYPES} == {"default": 6, "linear": 6, "dynamic": 6, "yarn": 6}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['parameters']['rope_type']}-{case['head_dim']}")
def test_rope_frequencies(case):
    frequencies, attention_factor = frequencies_from_hugging_face(
        case["parameters"], case["head_dim"], case["original_length"], case["sequence_length"]
    )
    np.testing.assert_allclose(frequencies, case["inverse_frequencies"], rtol=1e-6, atol=0)
    np.testing.assert_allclose(attention_factor, case["attention_factor"], rtol=1e-6, atol=0)


def test_alibi_slopes():
    golden = load("position_biases.json")["alibi_slopes"]
    assert {"3", "6", "12"} <= set(golden)  # not only powers of two
    for heads, expected in golden.items():
        np.testing.assert_allclose(slopes(int(heads)), expected, rtol=0, atol=1e-7)


def test_t5_buckets():
    cases = load("position_biases.json")["t5_buckets"]
    assert {case["bidirectional"] for case in cases} == {True, False}
    for case in cases:
        buckets = relative_bucket(
            np.array(case["relative_position_key_minus_query"]),
            case["bidirectional"],
            case["num_buckets"],
            case["max_distance"],
        )
        np.testing.assert_array_equal(buckets, case["bucket"])

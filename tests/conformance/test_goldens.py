"""Slopes and buckets against values that transformers 5.23 computed."""

import json
import pathlib

import numpy as np
import pytest

from models.positions.alibi import slopes
from models.positions.deberta import log_bucket
from models.positions.t5 import relative_bucket

GOLDENS = json.loads((pathlib.Path(__file__).parent.parent / "goldens" / "position_biases.json").read_text())
SOURCE = "golden values of transformers 5.23"


def test_every_group_of_values_is_used_below():
    assert set(GOLDENS) == {"source", "alibi_slopes", "t5_buckets", "deberta_log_buckets"}


@pytest.mark.conformance("position alibi", reference=SOURCE)
def test_alibi_slopes(conforms):
    golden = GOLDENS["alibi_slopes"]
    assert {"3", "6", "12"} <= set(golden)  # not only powers of two
    for heads, expected in golden.items():
        conforms(slopes(int(heads)), expected, tolerance=1e-7)
        conforms(slopes(int(heads)), expected, tolerance=1e-6, each=True)


@pytest.mark.conformance("position t5", reference=SOURCE)
def test_t5_buckets(conforms):
    cases = GOLDENS["t5_buckets"]
    assert {case["bidirectional"] for case in cases} == {True, False}
    for case in cases:
        buckets = relative_bucket(
            np.array(case["relative_position_key_minus_query"]),
            case["bidirectional"],
            case["num_buckets"],
            case["max_distance"],
        )
        conforms(buckets, case["bucket"], tolerance=0)


@pytest.mark.conformance("position deberta", reference=SOURCE)
def test_deberta_log_buckets(conforms):
    cases = GOLDENS["deberta_log_buckets"]
    assert len(cases) >= 2
    for case in cases:
        buckets = log_bucket(np.array(case["relative_position"]), case["bucket_size"], case["max_position"])
        conforms(buckets, case["bucket"], tolerance=0)

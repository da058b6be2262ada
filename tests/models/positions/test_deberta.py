"""Disentangled attention: its buckets and tables, and what it refuses."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidInput
from models.positions.deberta import DeBERTa, log_bucket
from models.positions.scheme import Tile
from tests.models.samples import random, tokens_at


@pytest.mark.parametrize(("scheme", "rows"), [(DeBERTa(), 256), (DeBERTa(max_distance=100, buckets=None), 100)])
def test_tables_have_a_row_per_bucket_and_head(scheme, rows):
    tables = scheme.layer_parameters(4, 32)
    assert {name: (spec.shape, spec.axes) for name, spec in tables.items()} == {
        name: ((rows, 4, 32), (None, "heads", "head_size")) for name in ("key", "query")
    }


@given(half=st.integers(2, 200), beyond=st.integers(2, 1000))
def test_buckets_are_exact_near_and_never_narrower_far(half, beyond):
    max_distance = half + beyond
    distances = np.arange(2 * max_distance)
    buckets = log_bucket(distances, 2 * half, max_distance)
    np.testing.assert_array_equal(buckets[: half + 1], distances[: half + 1])
    assert (np.diff(buckets) >= 0).all() and buckets[max_distance - 1] == 2 * half - 1
    np.testing.assert_array_equal(log_bucket(-distances, 2 * half, max_distance), -buckets)


def test_far_distances_share_the_last_row():
    scheme = DeBERTa(max_distance=16, buckets=8)
    assert scheme.rows().tolist() == [0, 1, 2, 3, 4, 5, 5, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7]
    parameters = {name: random(8, 2, 8, seed=i) for i, name in enumerate(("key", "query"))}
    same = jnp.broadcast_to(random(1, 1, 1, 8), (1, 1, 4, 8))
    tile = Tile(random(1, 2, 1, 8, seed=3), same, tokens_at([[900]]), tokens_at([[0, 880, 890, 891]]))
    added = np.asarray(scheme.change_logits(parameters, jnp.zeros((1, 2, 1, 4)), tile))[0, :, 0]
    np.testing.assert_array_equal(added[:, 1:3], added[:, :2])
    assert (np.abs(added[:, 3] - added[:, 2]) > 1e-3).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"buckets": 3}, r"^buckets = 3 is not allowed; it must be at least 4, or None"),
        ({"max_distance": 129}, r"^max_distance = 129 is not allowed; it must be above 129"),
        ({"max_distance": 1, "buckets": None}, r"^max_distance = 1 is not allowed; it must be at least 2"),
    ],
)
def test_buckets_that_cannot_work_are_refused(fields, message):
    with pytest.raises(InvalidInput, match=message):
        DeBERTa(**fields)

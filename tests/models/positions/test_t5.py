import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InvalidInput
from models.positions import T5, Tile, Tokens
from models.positions.t5 import relative_bucket


@settings(deadline=None)
@given(st.integers(2, 64), st.integers(1, 300))
def test_causal_buckets_grow_with_the_distance_and_use_the_whole_range(buckets, beyond):
    maximum = buckets // 2 + beyond
    got = relative_bucket(-np.arange(maximum + 50), False, buckets, maximum)
    assert got[0] == 0 and (np.diff(got) >= 0).all()
    assert (got[maximum:] == buckets - 1).all()
    np.testing.assert_array_equal(got[: buckets // 2], np.arange(buckets // 2))
    assert (relative_bucket(np.arange(5), False, buckets, maximum) == 0).all()


def test_bias_is_the_table_entry_of_the_bucket_even_far_away_and_trains_it():
    scheme = T5(buckets=8, max_distance=20)
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.normal(size=(8, 2)), jnp.float32)
    query = Tokens(jnp.array([[30, 5000]]), jnp.zeros((1, 2), jnp.int32))
    key = Tokens(jnp.array([[30, 27, 11, 0]]), jnp.zeros((1, 4), jnp.int32))
    tile = Tile(jnp.zeros((3, 2, 2, 4)), jnp.zeros((3, 1, 4, 4)), query, key)
    logits = jnp.asarray(rng.normal(size=(3, 2, 2, 4)), jnp.float32)

    def change(table):
        return scheme.change_logits({"bias": table}, logits, tile)

    bucket = relative_bucket(np.array([[0, -3, -19, -30], [-4970, -4973, -4989, -5000]]), False, 8, 20)
    wanted = logits + np.asarray(table)[bucket].transpose(2, 0, 1)[None]
    np.testing.assert_allclose(change(table), wanted, rtol=1e-6)
    counted = jax.grad(lambda table: change(table).sum())(table)
    np.testing.assert_array_equal(counted[:, 0], 3 * np.bincount(bucket.ravel(), minlength=8))


def test_declares_one_number_per_bucket_and_head():
    spec = T5().layer_parameters(4, 32)["bias"]
    assert spec.shape == (32, 4) and spec.axes == (None, "heads")
    assert not T5().plain_logits()


def test_refuses_impossible_buckets():
    with pytest.raises(InvalidInput, match="buckets = 1 is not allowed; it must be at least 2"):
        T5(buckets=1)
    with pytest.raises(InvalidInput, match=r"max_distance = 16 is not allowed; it must be above .* \(16\)"):
        T5(max_distance=16)

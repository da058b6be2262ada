import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.errors import InvalidInput
from models.positions import Learned

TABLE = jnp.arange(12, dtype=jnp.float32).reshape(4, 3)


def test_adds_the_rows_of_the_table():
    added = Learned(length=4).embed({"table": TABLE}, jnp.array([[3, 0], [1, 2]]), 3)
    np.testing.assert_array_equal(added, TABLE[np.array([[3, 0], [1, 2]])])


def test_positions_outside_the_table_give_nan_and_no_clamped_row():
    added = Learned(length=4).embed({"table": TABLE}, jnp.array([[3, 4, 1000, -1]]), 3)
    np.testing.assert_array_equal(np.isnan(added).all(-1), [[False, True, True, True]])


def test_declares_a_table_of_its_length():
    spec = Learned(length=4).embedding_parameters(3)["table"]
    assert spec.shape == (4, 3) and spec.axes == (None, "embed")
    wide = Learned(length=64).embedding_parameters(64)["table"]
    drawn = wide.initializer(jax.random.PRNGKey(0), wide.shape, jnp.float32)
    assert 0.015 < float(drawn.std()) < 0.025
    assert Learned(length=4).maximum_length() == 4


def test_refuses_a_length_that_is_missing_or_impossible():
    with pytest.raises(InvalidInput, match=r"^position\.length = None"):
        Learned().embedding_parameters(3)
    with pytest.raises(InvalidInput, match="length = 0 is not allowed; it must be at least 1"):
        Learned(length=0)

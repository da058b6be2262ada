"""Vectors by clipped distance: what the tables are, and that far distances share."""

import jax.numpy as jnp
import numpy as np
import pytest

from models.errors import InvalidInput
from models.positions.scheme import Tile
from models.positions.shaw import Shaw
from tests.models.samples import random, tokens_at


def test_tables_have_a_row_per_distance_up_to_the_largest_and_no_head():
    tables = Shaw().layer_parameters(4, 32)
    assert {name: (spec.shape, spec.axes) for name, spec in tables.items()} == {
        name: ((17, 32), (None, "head_size")) for name in ("key", "value")
    }


def test_neither_logits_nor_values_are_plain():
    assert not Shaw().plain_logits() and not Shaw().plain_values() and not Shaw().accumulates()


def test_distances_from_the_largest_on_are_one():
    parameters = {name: random(4, 8, seed=i) for i, name in enumerate(("key", "value"))}
    tile = Tile(
        random(1, 2, 1, 8, seed=3), random(1, 1, 5, 8), tokens_at([[900]]), tokens_at([[0, 896, 897, 898, 900]])
    )
    scheme, nothing = Shaw(max_distance=3), jnp.zeros((1, 2, 1, 5))
    added = np.asarray(scheme.change_logits(parameters, nothing, tile))[0, :, 0]
    np.testing.assert_array_equal(added[:, 0], added[:, 1])
    np.testing.assert_array_equal(added[:, 1], added[:, 2])
    assert (np.abs(np.diff(added[:, 2:], axis=1)) > 1e-3).all()
    # With no values of their own, keys give the vectors of their distances.
    given = scheme.weigh(
        parameters, jnp.eye(5)[None, None], jnp.zeros((1, 1, 5, 8)), tile._replace(query=tokens_at([[900] * 5]))
    )
    np.testing.assert_allclose(given[0, 0], parameters["value"][jnp.array([3, 3, 3, 2, 0])], rtol=1e-6)


def test_a_largest_distance_of_nothing_is_refused():
    with pytest.raises(InvalidInput, match=r"^max_distance = 0 is not allowed; it must be at least 1"):
        Shaw(max_distance=0)

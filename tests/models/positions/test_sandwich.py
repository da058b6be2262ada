import jax.numpy as jnp
import numpy as np
import pytest

from models.errors import InvalidInput
from models.positions.sandwich import TABLE_LENGTH, Sandwich, sum_of_cosines, table
from models.positions.scheme import Tile
from models.positions.sinusoidal import Sinusoidal
from tests.models.samples import tokens_at


def bias(scheme: Sandwich, query: list[int], key: list[int], heads: int = 3) -> np.ndarray:
    tile = Tile(
        jnp.zeros((1, heads, len(query), 2)), jnp.zeros((1, 1, len(key), 2)), tokens_at([query]), tokens_at([key])
    )
    return np.asarray(scheme.change_logits({}, jnp.zeros((1, heads, len(query), len(key))), tile))[0]


def test_it_is_the_inner_product_of_sinusoidal_positions():
    position = jnp.array([[0, 1, 7, 90]])
    vector = np.asarray(Sinusoidal().embed({}, position, 32))[0]
    got = bias(Sandwich(dimensions=32), [0, 1, 7, 90], [0, 1, 7, 90])
    for head in range(3):
        np.testing.assert_allclose(got[head], vector @ vector.T / (8 * (head + 1) / 3), atol=2e-5)


def test_looked_up_and_computed_sums_agree():
    distance = np.array([0, 1, 2, 63, 999, 4096, TABLE_LENGTH - 1])
    np.testing.assert_allclose(sum_of_cosines(jnp.asarray(distance), 128), table(128)[distance], atol=5e-4)
    near = distance[:5]
    np.testing.assert_allclose(sum_of_cosines(jnp.asarray(near), 128), table(128)[near], rtol=1e-5)


def test_distances_beyond_the_table_are_computed_and_not_clamped():
    far = TABLE_LENGTH + 5000
    got = bias(Sandwich(), [far], [0, far])[0, 0] * 8 / 3
    frequency = 10000.0 ** (-np.arange(64) / 64)
    np.testing.assert_allclose(got, [np.cos(far * frequency).sum(), 64], atol=1e-3)
    assert abs(got[0] - table(128)[-1]) > 0.1


def test_refuses_an_odd_number_of_dimensions():
    with pytest.raises(InvalidInput, match=r"^dimensions = 7 is not allowed; it must be an even number of at least 2$"):
        Sandwich(dimensions=7)

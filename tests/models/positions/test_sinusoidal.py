import jax.numpy as jnp
import numpy as np
import pytest

from models.errors import InvalidInput
from models.positions import Sinusoidal


def expected(position: int, width: int) -> tuple[list[float], list[float]]:
    angles = [position * 10000.0 ** (-2 * i / width) for i in range(width // 2)]
    return [np.sin(a) for a in angles], [np.cos(a) for a in angles]


def test_concatenated_puts_sines_first():
    added = Sinusoidal().embed({}, jnp.array([[0, 3, 700]]), 8)
    assert added.shape == (1, 3, 8) and added.dtype == jnp.float32
    for row, position in enumerate((0, 3, 700)):
        sines, cosines = expected(position, 8)
        np.testing.assert_allclose(added[0, row], sines + cosines, atol=1e-4)


def test_interleaved_alternates():
    added = Sinusoidal(layout="interleaved").embed({}, jnp.array([[5]]), 8)
    sines, cosines = expected(5, 8)
    np.testing.assert_allclose(added[0, 0, 0::2], sines, atol=1e-6)
    np.testing.assert_allclose(added[0, 0, 1::2], cosines, atol=1e-6)


def test_refuses_an_unknown_layout_and_an_odd_width():
    with pytest.raises(InvalidInput, match=r"^layout = 'mixed' is not allowed; .* concatenated, interleaved$"):
        Sinusoidal(layout="mixed")
    with pytest.raises(InvalidInput, match="width = 7"):
        Sinusoidal().embed({}, jnp.zeros((1, 1), jnp.int32), 7)

import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.positions import ALiBi, Tile, Tokens
from models.positions.alibi import slopes


@settings(deadline=None)
@given(st.integers(1, 200))
def test_slopes_are_different_powers_of_two_for_any_number_of_heads(heads):
    got = slopes(heads)
    assert got.shape == (heads,) and got.dtype == np.float32
    assert len(set(got.tolist())) == heads
    assert got.max() < 1 and got.min() >= 2.0**-8


def test_penalty_is_the_slope_times_the_distance():
    positions = jnp.array([[4, 9], [100000, 7]])
    tokens = Tokens(positions, jnp.zeros_like(positions))
    tile = Tile(jnp.zeros((2, 4, 2, 8)), jnp.zeros((2, 2, 2, 8)), tokens, tokens)
    changed = ALiBi().change_logits({}, jnp.ones((2, 4, 2, 2)), tile)
    distances = np.asarray(positions)[:, :, None] - np.asarray(positions)[:, None, :]
    np.testing.assert_allclose(
        changed, 1 - np.array([1 / 4, 1 / 16, 1 / 64, 1 / 256])[:, None, None] * distances[:, None]
    )
    assert not ALiBi().plain_logits() and ALiBi().layer_parameters(4, 8) == {}

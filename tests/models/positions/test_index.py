"""Index transforms against their formulas, written once more in plain Python."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidInput
from models.positions.index import (
    Clipped,
    DualChunk,
    Grouped,
    Index,
    Interpolated,
    LeakyClipped,
    Randomized,
    Reindexed,
    Shifted,
    zoned_distance,
)


def dual_chunk(m, n, length, local):
    chunk = length - local
    if m // chunk == n // chunk:
        return m % chunk - n % chunk
    if m // chunk == n // chunk + 1:
        return min(m % chunk + chunk, length - 1) - n % chunk
    return length - 1 - n % chunk


CASES = {
    "clipped": (Clipped(5), lambda m, n: min(m - n, 5)),
    "leaky_clipped": (LeakyClipped(5, 3.0), lambda m, n: m - n if m - n < 5 else 5 + (m - n - 5) / 3.0),
    "grouped": (Grouped(7, 3), lambda m, n: m - n if m - n < 7 else m // 3 - n // 3 + 7 - 7 // 3),
    "dual_chunk": (DualChunk(10, 3), lambda m, n: dual_chunk(m, n, 10, 3)),
    "reindexed": (Reindexed(window=6, sinks=2), lambda m, n: min(m, 7) - n if n < 2 else m - n),
}


def test_every_transform_of_distances_is_covered():
    needs_a_length = {"dual_chunk": {"original_length": 16}}
    zoned = {name for name, cls in Index.registry.items() if cls(**needs_a_length.get(name, {})).zones()}
    assert zoned == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_distances_are_those_of_the_formula(name):
    index, formula = CASES[name]
    positions = np.arange(60)
    got = np.asarray(zoned_distance(index.zones(), jnp.asarray(positions)[None], jnp.asarray(positions)[None]))[0]
    wanted = np.array([[formula(m, n) for n in positions] for m in positions], np.float64)
    causal = np.tril(np.ones_like(wanted, bool))
    np.testing.assert_allclose(got[causal], wanted[causal], rtol=1e-6)
    assert np.issubdtype(got.dtype, np.integer) == index.whole


@given(st.sampled_from(sorted(CASES)), st.integers(0, 10**6), st.integers(0, 10**6))
def test_near_keys_are_where_they_are_and_no_key_is_ahead(name, query, back):
    index, _ = CASES[name]
    key = max(0, query - back)
    (got,) = np.asarray(zoned_distance(index.zones(), jnp.full((1, 1), query), jnp.full((1, 1), key))).ravel()
    # Two positions of one distance can be a group further apart than two others.
    assert 0 <= got <= query - key + (1 if name == "grouped" else 1e-3)
    # The nearest three: what every case above leaves alone, but for sinks in a full cache.
    if query - key < 3 and not (name == "reindexed" and key < 2):
        assert got == query - key


def test_dual_chunk_stays_within_what_training_showed_which_its_authors_code_does_not():
    positions = jnp.arange(200)[None]
    inside = np.asarray(zoned_distance(DualChunk(16, 4).zones(), positions, positions))[0]
    assert inside[np.tril_indices(200)].max() == 15
    assert DualChunk(16).zones()[2].query(positions[0])[0] == 15  # the code: 16


def test_randomized_positions_are_increasing_different_and_below_the_maximum():
    position = jnp.arange(20)[None]
    index = Randomized(maximum=50, seed=3)
    drawn = np.asarray(index.draw(jax.random.key(0), position, 1, 20, training=True))[0]
    assert (np.diff(drawn) > 0).all() and drawn[0] >= 0 and drawn[-1] < 50
    assert not np.array_equal(drawn, index.draw(jax.random.key(1), position, 1, 20, training=True)[0])
    fixed = [np.asarray(index.draw(jax.random.key(i), position, 1, 20, training=False)) for i in (0, 1)]
    np.testing.assert_array_equal(*fixed)
    np.testing.assert_array_equal(index.draw(jax.random.key(0), position, 1, 50, training=True)[0], np.arange(20))
    with pytest.raises(InvalidInput, match=r"maximum = 50 is not allowed; it must be at least the length"):
        index.draw(jax.random.key(0), position, 1, 51, training=True)


def test_every_position_is_drawn_equally_often():
    position = jnp.arange(10)[None]
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.vmap(lambda key: Randomized(maximum=20).draw(key, position, 1, 10, True))(keys)
    counts = np.bincount(np.asarray(drawn).ravel(), minlength=20) / 4000
    np.testing.assert_allclose(counts, 0.5, atol=5 * 0.5 / 4000**0.5)


@pytest.mark.parametrize("alike", [True, False])
def test_a_shift_is_drawn_for_each_row_and_in_training_alone(alike):
    """Also where one line of positions stands for those of all rows."""
    position = jnp.broadcast_to(jnp.arange(4), (1 if alike else 300, 4))
    drawn = np.asarray(Shifted(maximum=3).draw(jax.random.key(0), position, 300, 4, training=True))
    assert drawn.shape == (300, 4) and set(drawn[:, 0]) == {0, 1, 2, 3} and (np.diff(drawn, axis=1) == 1).all()
    assert Shifted(maximum=3).draw(jax.random.key(0), position, 300, 4, training=False) is position


def test_interpolated_positions_are_fractions():
    np.testing.assert_array_equal(Interpolated(4.0).place(jnp.arange(5)), [0, 0.25, 0.5, 0.75, 1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Clipped(0), "window = 0 is not allowed; it must be at least 1"),
        (lambda: LeakyClipped(4, 0.5), "step = 0.5"),
        (lambda: Grouped(4, 0), "group = 0"),
        (lambda: DualChunk(8, 8), "local = 8 is not allowed; it must be from 1 to below original_length"),
        (lambda: DualChunk().zones(), "position.index.original_length = None"),
        (lambda: Reindexed(0), "window = 0"),
        (lambda: Interpolated(0.5), "factor = 0.5"),
        (lambda: Shifted(-1), "maximum = -1"),
        (lambda: Randomized(0), "maximum = 0"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(InvalidInput, match=re.escape(message)):
        make()

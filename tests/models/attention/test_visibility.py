"""Who sees whom, and which tiles need no look at all."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.attention import Full, Sliding, Visibility, visible
from models.attention.visibility import live_tiles
from models.errors import InvalidInput
from models.positions.scheme import contiguous_tokens
from tests.models.samples import tokens_at

TILE, LENGTH = 4, 16
SPANS = [cls() for _, cls in Visibility.registry.items()]
SIDE = st.lists(st.tuples(st.integers(0, 700), st.integers(-1, 3)), min_size=LENGTH, max_size=LENGTH)


def tokens(pairs):
    """One row of tokens at (position, document)."""
    position, document = np.array(pairs).T
    return tokens_at(position[None], document[None])


def holds_visible(seen_BxLxS, query_tile, key_tile):
    """Whether each tile holds a visible pair in any row."""
    batch, length, keys = seen_BxLxS.shape
    tiles = np.asarray(seen_BxLxS).reshape(batch, length // query_tile, query_tile, keys // key_tile, key_tile)
    return tiles.any(axis=(0, 2, 4))


def test_visible_is_causal_within_the_document_and_never_padding():
    row = tokens([(0, -1), (0, 1), (1, 1), (2, 1), (0, 4), (1, 4)])
    seen = visible(Full(), row, row)[0]
    assert seen.dtype == bool
    wanted = np.zeros((6, 6), bool)
    wanted[1:4, 1:4], wanted[4:, 4:] = np.tri(3), np.tri(2)
    np.testing.assert_array_equal(seen, wanted)


def test_a_window_counts_the_token_itself():
    row = contiguous_tokens(6)
    np.testing.assert_array_equal(visible(Sliding(1), row, row)[0], np.eye(6, dtype=bool))
    np.testing.assert_array_equal(visible(Sliding(3), row, row)[0].sum(axis=1), [1, 2, 3, 3, 3, 3])


@pytest.mark.parametrize("name", Visibility.registry)
def test_a_span_never_sees_what_is_later(name):
    row = contiguous_tokens(LENGTH)
    seen = np.asarray(visible(Visibility.registry[name](), row, row)[0])
    assert not np.triu(seen, 1).any() and np.diag(seen).all()


@pytest.mark.parametrize("span", [*SPANS, Sliding(1), Sliding(5)])
@given(query=SIDE, key=SIDE, tiles=st.sampled_from([(4, 4), (1, 8)]))
def test_no_tile_with_a_visible_pair_is_skipped(span, query, key, tiles):
    """At any positions and documents, in any order."""
    query, key = tokens(query), tokens(key)
    live = np.asarray(live_tiles(span, query, key, *tiles))
    assert live.shape == (LENGTH // tiles[0], LENGTH // tiles[1])
    assert (live | ~holds_visible(visible(span, query, key), *tiles)).all()


@pytest.mark.parametrize(
    ("span", "count"),
    [
        (Full(), 8 * 9 // 2),
        (Sliding(1), 8),
        (Sliding(2), 2 * 8 - 1),
        (Sliding(TILE + 1), 2 * 8 - 1),
        (Sliding(TILE + 2), 21),
    ],
)
def test_all_other_tiles_of_one_document_are_skipped(span, count):
    row = contiguous_tokens(8 * TILE)
    live = np.asarray(live_tiles(span, row, row, TILE, TILE))
    assert live.sum() == count
    np.testing.assert_array_equal(live, holds_visible(visible(span, row, row), TILE, TILE))


def test_documents_and_padding_are_skipped_too():
    lengths = (TILE, 2 * TILE, TILE)
    position = np.concatenate([np.arange(length) for length in lengths])
    row = tokens_at([position], [np.repeat([0, 1, -1], lengths)])
    np.testing.assert_array_equal(
        live_tiles(Full(), row, row, TILE, TILE),
        [[True, False, False, False], [False, True, False, False], [False, True, True, False], [False] * 4],
    )


def test_a_tile_lives_if_any_row_needs_it():
    position = jnp.tile(jnp.arange(2 * TILE), (2, 1))
    rows = tokens_at(position, [[0] * 2 * TILE, [0] * TILE + [1] * TILE])
    assert live_tiles(Full(), rows, rows, TILE, TILE).tolist() == [[True, False], [True, True]]


def test_a_window_of_nothing_is_refused():
    with pytest.raises(InvalidInput, match=r"^window = 0 is not allowed; it must be at least 1$"):
        Sliding(0)

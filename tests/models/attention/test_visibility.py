"""Who sees whom, which tiles need no look at all, and what a cache must keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.attention import AttentionRule, Tiles, blockwise_attention, reference_attention
from models.attention.visibility import (
    And,
    BlockSparse,
    Chunked,
    Dilated,
    Full,
    GlobalTokens,
    Or,
    Prefix,
    Sinks,
    Sliding,
    Strided,
    Visibility,
    live_tiles,
    visible,
)
from models.errors import InvalidInput
from models.positions import NoPosition
from models.positions.scheme import contiguous_tokens
from tests.models.samples import SPANS, compiled, random, relative_error, tokens_at

TILE, LENGTH = 4, 16
# One of every alternative, small enough to be at its limits within a few tiles.
COUNT = st.integers(1, 60)
SIMPLE = st.one_of(
    st.just(Full()),
    st.builds(Sliding, COUNT),
    st.builds(Sinks, COUNT, COUNT),
    st.builds(Dilated, st.integers(1, 8), COUNT),
    st.builds(Strided, COUNT),
    st.tuples(COUNT, COUNT).map(lambda pair: BlockSparse(max(pair), min(pair))),
    st.builds(GlobalTokens, COUNT),
    st.builds(Chunked, COUNT),
    st.builds(Prefix, COUNT),
)


def combined(spans):
    members = st.lists(spans, min_size=1, max_size=3).map(tuple)
    return st.builds(And, members) | st.builds(Or, members)


ANY = st.recursive(SIMPLE, combined, max_leaves=4)
SIDE = st.lists(st.tuples(st.integers(0, 150), st.integers(-1, 3)), min_size=LENGTH, max_size=LENGTH)


def tokens(pairs):
    """One row of tokens at (position, document)."""
    position, document = np.array(pairs).T
    return tokens_at(position[None], document[None])


def mask(span, length):
    """What a document of `length` tokens sees, bool [length, length]."""
    position = np.arange(length)
    return span.sees(position[:, None], position[None, :])


def holds_visible(seen_BxLxS, query_tile, key_tile):
    """Whether each tile holds a visible pair in any row."""
    batch, length, keys = seen_BxLxS.shape
    tiles = np.asarray(seen_BxLxS).reshape(batch, length // query_tile, query_tile, keys // key_tile, key_tile)
    return tiles.any(axis=(0, 2, 4))


def test_there_is_a_sample_of_every_alternative():
    assert {name: span.name for name, span in SPANS.items()} == {name: name for name in Visibility.registry}


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


@pytest.mark.parametrize("span", [*SPANS.values(), *(cls() for _, cls in Visibility.registry.items())])
def test_every_span_holds_within_documents_and_never_shows_padding(span):
    """Packed, a document sees what it sees alone; only a span that says so sees what is later; all see themselves."""
    lengths = (9, 3, 20)
    row = tokens([(n, document) for document, length in zip((0, -1, 2), lengths, strict=True) for n in range(length)])
    wanted = np.zeros((32, 32), bool)
    wanted[:9, :9], wanted[12:, 12:] = mask(span, 9), mask(span, 20)
    np.testing.assert_array_equal(visible(span, row, row)[0], wanted)
    assert np.diag(mask(span, 20)).all()
    assert np.triu(mask(span, 20), 1).any() == (not span.is_causal())


@given(span=ANY)
def test_a_span_never_sees_ahead_where_it_says_so_and_always_itself(span):
    seen = mask(span, 80)
    assert np.diag(seen).all()
    assert not (span.is_causal() and np.triu(seen, 1).any())


@given(span=ANY, query=SIDE, key=SIDE, tiles=st.sampled_from([(4, 4), (1, 8), (2, 1)]))
def test_no_tile_with_a_visible_pair_is_skipped(span, query, key, tiles):
    """At any positions and documents, in any order."""
    query, key = tokens(query), tokens(key)
    live = np.asarray(live_tiles(span, query, key, *tiles))
    assert live.shape == (LENGTH // tiles[0], LENGTH // tiles[1])
    assert (live | ~holds_visible(visible(span, query, key), *tiles)).all()


@given(
    span=ANY,
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    start=st.integers(0, 9),
    tile=st.sampled_from([2, 8]),
)
def test_no_tile_of_packed_documents_is_skipped(span, lengths, start, tile):
    """Behind padding, cut where a row ends, and read backwards too: positions that fall."""
    pairs = [(0, -1)] * start + [(n, document) for document, length in enumerate(lengths) for n in range(length)]
    pairs = (pairs + [(0, -1)] * 64)[:64]
    for order in (pairs, pairs[::-1]):
        row = tokens(order)
        live = np.asarray(live_tiles(span, row, row, tile, tile))
        assert (live | ~holds_visible(visible(span, row, row), tile, tile)).all()


@pytest.mark.parametrize(
    ("span", "count"),
    [
        (Full(), 8 * 9 // 2),
        (Sliding(1), 8),
        (Sliding(2), 2 * 8 - 1),
        (Sliding(TILE + 1), 2 * 8 - 1),
        (Sliding(TILE + 2), 21),
        (Sinks(1, 1), 2 * 8 - 1),
        (Sinks(TILE + 2, TILE + 1), 21 + 5 + 4),
        (Dilated(2, 3 * TILE), 8 + 5 + 0),
        (Strided(4 * TILE), 8 + 7 + 6 + 5 + 4),
        (BlockSparse(2 * TILE, 1), 4 * 3 + 2 * (1 + 2 + 3)),
        (GlobalTokens(1), 2 * 8 - 1),
        (Chunked(2 * TILE), 4 * 3),
        (Chunked(2 * TILE + 1), 18),
        (Prefix(TILE + 1), 8 * 9 // 2 + 1),
        (Or((Sliding(1), GlobalTokens(TILE))), 2 * 8 - 1),
        (Or((Chunked(2 * TILE), Prefix(4 * TILE))), 8 * 9 // 2 + 6),
        (And((Sliding(TILE + 1), Chunked(2 * TILE))), 4 * 3),
    ],
)
def test_all_other_tiles_of_one_document_are_skipped(span, count):
    row = contiguous_tokens(8 * TILE)
    live = np.asarray(live_tiles(span, row, row, TILE, TILE))
    np.testing.assert_array_equal(live, holds_visible(visible(span, row, row), TILE, TILE))
    assert live.sum() == count


@pytest.mark.parametrize("span", [span for name, span in SPANS.items() if name != "and"])
@pytest.mark.parametrize("tile", [2, 16])
def test_the_tile_test_is_exact_within_one_document(span, tile):
    row = contiguous_tokens(64)
    live = np.asarray(live_tiles(span, row, row, tile, tile))
    np.testing.assert_array_equal(live, holds_visible(visible(span, row, row), tile, tile))


# In tiles of 128, full causal has 128 · 129 / 2 = 8256.
@pytest.mark.parametrize(
    ("span", "count"),
    [
        (Full(), 8256),
        (Sliding(256), 128 + 127 + 126),
        (Sinks(256, 4), 128 + 127 + 126 + 125),
        (Dilated(256, 2), 128 + 127 + 126 + 125 + 124),
        (Dilated(4, 1024), 128 + 120 + 112 + 104),
        (Chunked(1024), 16 * 36),
        (GlobalTokens(16), 128 + 127),
        (Strided(1024), sum(range(120, 129)) + sum(range(8, 120, 8))),
        (Strided(128), 8256),
        (BlockSparse(1024, 32), 16 * 36 + 8 * sum(range(16))),
        (BlockSparse(128, 32), 8256),
        (Or((Sliding(256), GlobalTokens(16))), 128 + 127 + 126 + 125),
        (And((Sliding(256), Chunked(1024))), 16 * (8 + 7 + 6)),
        (Prefix(1024), 8256 + 28),
    ],
)
def test_work_at_a_length_of_16384(span, count):
    row = contiguous_tokens(16_384)
    assert live_tiles(span, row, row, 128, 128).sum() == count


def test_a_window_of_256_and_chunks_of_1024_visit_less_than_a_tenth():
    row = contiguous_tokens(16_384)
    full, window, chunks = (live_tiles(s, row, row, 128, 128).sum() for s in (Full(), Sliding(256), Chunked(1024)))
    assert max(window, chunks) < full / 10


def test_documents_and_padding_are_skipped_too():
    lengths = (TILE, 2 * TILE, TILE)
    position = np.concatenate([np.arange(length) for length in lengths])
    row = tokens_at([position], [np.repeat([0, 1, -1], lengths)])
    np.testing.assert_array_equal(
        live_tiles(Full(), row, row, TILE, TILE),
        [[True, False, False, False], [False, True, False, False], [False, True, True, False], [False] * 4],
    )


@pytest.mark.parametrize("span", SPANS.values(), ids=SPANS)
def test_padding_is_skipped_whatever_the_span(span):
    row = tokens([(n, 0) for n in range(TILE)] + [(0, -1)] * 2 * TILE)
    assert live_tiles(span, row, row, TILE, TILE).sum() == 1


def test_a_tile_lives_if_any_row_needs_it():
    position = jnp.tile(jnp.arange(2 * TILE), (2, 1))
    rows = tokens_at(position, [[0] * 2 * TILE, [0] * TILE + [1] * TILE])
    assert live_tiles(Full(), rows, rows, TILE, TILE).tolist() == [[True, False], [True, True]]


def test_attention_by_tiles_is_the_same_under_every_span():
    """In one program: documents of 20 and 17 tokens beside one of 37."""
    position, document = np.tile(np.arange(37), (2, 1)), np.zeros((2, 37), int)
    position[0, 20:], document[0, 20:] = np.arange(17), 1
    row = tokens_at(position, document)
    q, k, v = (random(2, heads, 37, 8, seed=heads) for heads in (4, 2, 1))
    v = jnp.repeat(v, 2, axis=1)

    @compiled
    def evaluate(q, k, v):
        rules = [AttentionRule(NoPosition(), span) for span in SPANS.values()]
        by_tiles = [blockwise_attention(rule, {}, q, k, v, row, row, Tiles(8, 4)) for rule in rules]
        return by_tiles, [reference_attention(rule, {}, q, k, v, row, row) for rule in rules]

    for name, got, wanted in zip(SPANS, *evaluate(q, k, v), strict=True):
        assert relative_error(got, wanted) < 1e-5, name


@pytest.mark.parametrize(
    ("span", "kept"),
    [
        (Full(), None),
        (Sliding(5), (0, 5)),
        (Sinks(5, 2), (2, 5)),
        (Dilated(3, 4), (0, 9)),
        (Strided(5), None),
        (BlockSparse(6, 2), None),
        (GlobalTokens(3), (3, 1)),
        (Chunked(5), (0, 5)),
        (Prefix(5), None),
        (And((Full(), Prefix(5))), None),
        (And((Full(), Sinks(5, 2))), (2, 5)),
        (And((Sinks(5, 2), Sliding(6))), (0, 6)),
        (And((Sliding(9), GlobalTokens(3))), (3, 1)),
        (Or((Sinks(5, 2), Sliding(6))), (2, 6)),
        (Or((Sliding(9), GlobalTokens(3))), (3, 9)),
        (Or((Sliding(9), Full())), None),
        (Or((And((Sliding(9), Full())), Chunked(4))), (0, 9)),
    ],
)
def test_what_a_cache_must_keep(span, kept):
    assert span.remembers() == kept


@given(span=ANY)
def test_nothing_that_a_cache_may_forget_is_seen(span):
    kept = span.remembers()
    if kept is not None:
        query, key = np.nonzero(mask(span, 80))
        assert ((key < kept[0]) | (query - key < kept[1])).all()


@given(span=ANY, length=st.integers(1, 90))
def test_keys_are_counted_as_they_are_seen(span, length):
    np.testing.assert_array_equal(span.keys_seen(np.arange(length), length), mask(span, length).sum(axis=1))


@pytest.mark.parametrize(
    "span",
    [Sliding(2**30), Sinks(2**30, 2**30), Dilated(2**30, 1), Strided(2**30), BlockSparse(2**30, 1), Chunked(2**30)],
)
def test_the_largest_numbers_do_not_overflow(span):
    row = tokens([(n, 0) for n in range(2 * TILE)] + [(0, -1)] * TILE)
    np.testing.assert_array_equal(visible(span, row, row), visible(Full(), row, row))
    np.testing.assert_array_equal(live_tiles(span, row, row, TILE, TILE), live_tiles(Full(), row, row, TILE, TILE))


def test_spans_are_static_arguments():
    """Equal ones share a compiled program."""
    spans = {cls() for _, cls in Visibility.registry.items()} | set(SPANS.values())
    assert len(spans) == 2 * len(SPANS) - 1
    assert Or((And((Full(), Sliding(3))),)) in {Or((And((Full(), Sliding(3))),))}
    traced = []

    def count(span, row):
        traced.append(span)
        return visible(span, row, row).sum()

    counted = jax.jit(count, static_argnums=0)
    assert [counted(Or((Sliding(1), Chunked(2))), contiguous_tokens(4)) for _ in range(2)] == [6, 6]
    assert len(traced) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Sliding(0), "window = 0 is not allowed; it must be at least 1"),
        (lambda: Sliding(2**31), "window = 2147483648 is not allowed; it must be at most 1073741824"),
        (lambda: Sinks(0, 4), "window = 0 is not allowed; it must be at least 1"),
        (lambda: Sinks(4, 0), "sinks = 0 is not allowed; it must be at least 1"),
        (lambda: Dilated(0, 2), "window = 0 is not allowed; it must be at least 1"),
        (lambda: Dilated(2, 0), "dilation = 0 is not allowed; it must be at least 1"),
        (lambda: Dilated(2**20, 2**20), f"window · dilation = {2**40} is not allowed; it must be at most 1073741824"),
        (lambda: Strided(-3), "stride = -3 is not allowed; it must be at least 1"),
        (lambda: BlockSparse(0, 1), "block = 0 is not allowed; it must be at least 1"),
        (lambda: BlockSparse(8, 9), "columns = 9 is not allowed; it must be from 1 to block = 8"),
        (lambda: BlockSparse(8, 0), "columns = 0 is not allowed; it must be from 1 to block = 8"),
        (lambda: GlobalTokens(0), "count = 0 is not allowed; it must be at least 1"),
        (lambda: Chunked(0), "chunk = 0 is not allowed; it must be at least 1"),
        (lambda: Prefix(0), "length = 0 is not allowed; it must be at least 1"),
        (lambda: And(()), "of = () is not allowed; it must be a list of one or more spans"),
        (lambda: Or(()), "of = () is not allowed; it must be a list of one or more spans"),
        (lambda: Or(("full",)), "of = ('full',) is not allowed; it must be a list of one or more spans"),
    ],
)
def test_what_is_no_span_is_refused(make, words):
    with pytest.raises(InvalidInput) as caught:
        make()
    assert str(caught.value) == words

"""Batches depend on (seed, step) alone, hosts share them out, and every token is scored once an epoch."""

import threading
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InvalidInput
from train.batches import AHEAD, Batches, best_fit, cut
from train.corpora import Document
from train.store import TokenStore

BOUNDARY = 60_000
PACKINGS = ("windows", "documents")


class Counting:
    """A token per character, and every token of the corpus an id of its own, so that tests can tell which is where."""

    vocabulary_size = BOUNDARY + 1
    boundary_id = BOUNDARY
    hash = "counting"

    def __init__(self):
        self.next = 1

    def encode_with_lengths(self, text):
        ids = np.arange(self.next, self.next + len(text), dtype=np.int32)
        self.next += len(text)
        return ids, np.array([len(character.encode()) for character in text], np.int32)


@pytest.fixture(scope="module")
def make_store(tmp_path_factory):
    def make(*lengths: int) -> TokenStore:
        texts = [("aé€" * length)[:length] for length in lengths]
        documents = [Document(str(i), text) for i, text in enumerate(texts)]
        return TokenStore.build(tmp_path_factory.mktemp("store"), documents, Counting())

    return make


def epoch(batches: Batches) -> list[dict[str, np.ndarray]]:
    """One epoch's rows of batches of one row."""
    return [batches[step] for step in range(batches.rows_per_epoch)]


def same(left, right) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[key], right[key]) for key in left)


corpus_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=12).filter(lambda lengths: sum(lengths) >= 2)


@settings(deadline=None, max_examples=20)
@given(corpus_lengths, st.integers(1, 24), st.sampled_from(PACKINGS))
def test_every_token_is_scored_once_an_epoch(make_store, lengths, length, packing):
    store = make_store(*lengths)
    if packing == "windows":
        length = min(length, store.token_count - 1)
    rows = epoch(Batches(store, length=length, batch_size=1, packing=packing, seed=3))
    scored = Counter()
    for row in rows:
        assert row["tokens"].shape == row["targets"].shape == row["weights"].shape == row["bytes"].shape == (1, length)
        where = [row[key] for key in ("position", "document") if key in row]
        assert len(where) == (2 if packing == "documents" else 0)
        for array in (row["tokens"], row["targets"], row["bytes"], *where):
            assert array.shape == (1, length) and array.dtype == np.int32
        assert row["weights"].dtype == np.float32
        scored.update(row["targets"][row["weights"] > 0].tolist())
    expected = Counter(range(1, sum(lengths) + 1))
    if packing == "windows" and len(lengths) > 1:
        expected[BOUNDARY] = len(lengths) - 1
    assert scored == expected
    assert sum(row["weights"].sum() for row in rows) == expected.total()
    assert sum(row["bytes"].sum() for row in rows) == store.byte_count


@settings(deadline=None, max_examples=20)
@given(corpus_lengths, st.integers(1, 24))
def test_rows_of_documents_never_mix_them(make_store, lengths, length):
    store = make_store(*lengths)
    document_of = np.repeat(np.arange(len(lengths)), lengths)
    following = {int(a): int(b) for a, b in zip(store.tokens[:-1], store.tokens[1:], strict=True) if a != BOUNDARY}
    for row in epoch(Batches(store, length=length, batch_size=1, packing="documents", seed=0)):
        tokens, targets, weights, position, document = (
            row[key][0] for key in ("tokens", "targets", "weights", "position", "document")
        )
        padding = document == -1
        np.testing.assert_array_equal(weights, ~padding)
        assert not padding[: (~padding).sum()].any()
        assert not tokens[padding].any() and not targets[padding].any() and not row["bytes"][0][padding].any()
        for piece in range(document.max() + 1):
            inside = document == piece
            np.testing.assert_array_equal(position[inside], np.arange(inside.sum()))
            assert len(set(document_of[targets[inside] - 1])) == 1
            assert (tokens[inside][1:] == targets[inside][:-1]).all()
            first, second = int(tokens[inside][0]), int(targets[inside][0])
            assert first == BOUNDARY or following[first] == second


def test_windows_are_contiguous_and_end_with_the_text(make_store):
    store = make_store(6, 5)
    rows = epoch(Batches(store, length=5, batch_size=1, packing="windows", seed=0))
    rows = {int(row["targets"][0, 0]): row for row in rows}
    tokens = [BOUNDARY, 1, 2, 3, 4, 5, 6, BOUNDARY, 7, 8, 9, 10, 11]
    assert set(rows) == {tokens[1], tokens[6], tokens[8]}
    for start, scored in ((0, 5), (5, 5), (7, 2)):
        row = rows[tokens[start + 1]]
        assert row["tokens"].tolist() == [tokens[start : start + 5]]
        assert row["targets"].tolist() == [tokens[start + 1 : start + 6]]
        assert row["weights"].tolist() == [[0.0] * (5 - scored) + [1.0] * scored]
    assert rows[tokens[8]]["bytes"].tolist() == [[0, 0, 0, 1, 2]]


def test_short_documents_share_a_row_and_long_ones_are_cut(make_store):
    rows = epoch(Batches(make_store(7, 2, 1), length=4, batch_size=1, packing="documents", seed=0))
    rows = sorted(
        (row["targets"][0].tolist(), row["position"][0].tolist(), row["document"][0].tolist()) for row in rows
    )
    assert rows == [
        ([1, 2, 3, 4], [0, 1, 2, 3], [0, 0, 0, 0]),
        ([5, 6, 7, 10], [0, 1, 2, 0], [0, 0, 0, 1]),
        ([8, 9, 0, 0], [0, 1, 0, 0], [0, 0, -1, -1]),
    ]


@pytest.mark.parametrize("packing", PACKINGS)
def test_hosts_share_one_global_batch(make_store, packing):
    store = make_store(50, 3, 17, 90, 5)
    fields = {"length": 8, "batch_size": 8, "packing": packing, "seed": 11}
    per_row = ("tokens", "targets", "weights", "bytes") + (("position", "document") if packing == "documents" else ())
    for step in (0, 1, 2, 7):
        global_sets = []
        for host_count in (1, 2, 4):
            rows = []
            for host in range(host_count):
                batch = Batches(store, **fields, host_index=host, host_count=host_count)[step]
                assert len(batch["tokens"]) == 8 // host_count
                rows += list(zip(*(map(bytes, batch[key]) for key in per_row), strict=True))
            global_sets.append(sorted(rows))
        assert len(global_sets[0]) == 8
        assert global_sets[0] == global_sets[1] == global_sets[2]


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_batch_depends_on_its_step_alone(make_store, packing):
    store = make_store(50, 3, 17, 90, 5)
    fields = {"length": 8, "batch_size": 4, "packing": packing, "seed": 5}
    batches = Batches(store, **fields)
    in_order = [batches[step] for step in range(20)]
    fresh = Batches(store, **fields)
    for step in (19, 3, 0, 3, 11):
        assert same(fresh[step], in_order[step])
    iterator = fresh.iterate(start_step=6)
    for step in range(6, 20):
        assert same(next(iterator), in_order[step])
    iterator.close()
    other = Batches(store, **{**fields, "seed": 6})
    assert not all(same(other[step], in_order[step]) for step in range(5))


def test_epochs_are_shuffled_differently(make_store):
    batches = Batches(make_store(400), length=8, batch_size=1, packing="windows", seed=0)
    rows = batches.rows_per_epoch
    first, second = ([int(batches[start + i]["tokens"][0, 0]) for i in range(rows)] for start in (0, rows))
    assert sorted(first) == sorted(second)
    assert first != second and first != sorted(first)


def test_iteration_prepares_ahead_within_bounds_and_stops_cleanly(make_store):
    batches = Batches(make_store(400), length=8, batch_size=2, packing="windows", seed=0)
    gather, asked = batches._packing.gather, []

    def counting(rows):
        asked.append(threading.current_thread())
        return gather(rows)

    batches._packing.gather = counting
    iterator = batches.iterate()
    next(iterator)
    deadline = time.monotonic() + 10
    while len(asked) < AHEAD + 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(asked) == AHEAD + 1
    assert threading.current_thread() not in asked
    iterator.close()
    assert not any(thread.is_alive() for thread in asked)


def test_an_error_in_a_thread_reaches_the_consumer(make_store):
    batches = Batches(make_store(40), length=8, batch_size=2, packing="windows", seed=0)

    def broken(rows):
        raise OSError("disk gone")

    batches._packing.gather = broken
    with pytest.raises(OSError, match="disk gone"):
        next(batches.iterate())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"packing": "rows"}, r"data\.packing = 'rows'.*windows, documents"),
        ({"length": 0}, r"train\.length = 0"),
        ({"length": 20}, r"train\.length = 20.*at most 10 .*\"windows\".*11 tokens"),
        ({"batch_size": 3, "host_count": 2}, r"train\.batch_size = 3.*multiple of the number of hosts, 2"),
        ({"batch_size": 0}, r"train\.batch_size = 0"),
        ({"host_index": 1}, r"host_index = 1.*below 1"),
        ({"seed": -1}, r"^seed = -1"),
    ],
)
def test_fields_that_do_not_fit_are_refused(make_store, fields, message):
    with pytest.raises(InvalidInput, match=message):
        Batches(make_store(10), **{"length": 4, "batch_size": 2, "packing": "windows", "seed": 0, **fields})


def test_a_document_shorter_than_the_length_is_padded(make_store):
    batch = Batches(make_store(3), length=8, batch_size=2, packing="documents", seed=0)[0]
    assert batch["weights"].tolist() == [[1.0] * 3 + [0.0] * 5] * 2
    assert batch["document"].tolist() == [[0] * 3 + [-1] * 5] * 2


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(1, 16))
def test_pieces_cover_documents_and_rows_hold_them(predictions, length):
    starts = np.concatenate([[0], np.cumsum(np.array(predictions) + 1)])
    piece_start, piece_length = cut(starts, length)
    covered = np.concatenate([np.arange(s, s + n) for s, n in zip(piece_start, piece_length, strict=True)])
    inputs = np.concatenate([np.arange(s, s + n) for s, n in zip(starts, predictions, strict=False)])
    np.testing.assert_array_equal(covered, inputs)
    row = best_fit(piece_length, length)
    filled = np.bincount(row, weights=piece_length)
    assert filled.max() <= length and (filled > 0).all()
    # Two rows that would fit into one would have been one.
    assert len(filled) == 1 or np.sort(filled)[:2].sum() > length

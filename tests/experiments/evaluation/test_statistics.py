"""The numbers of a table, against sums done by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.evaluation.statistics import bits_per_byte, by_position, interval, log_buckets, summarize


def test_a_table_row_made_by_hand():
    # Two documents: 3 tokens of 2, 1 and 5 bytes; 1 token of 4 bytes. 12 bits in all, over 12 bytes.
    bits = [np.array([1.0, 2.0, 3.0]), np.array([6.0])]
    nats = [document.astype(np.float32) * np.float32(math.log(2)) for document in bits]
    row = summarize(nats, [np.array([2, 1, 5]), np.array([4])], resamples=50)
    assert row["tokens"] == 4 and row["bytes"] == 12
    assert row["bits_per_byte"] == pytest.approx(1.0, rel=1e-6)
    # Token-weighted: the documents' own means are 2 and 6 bits, whose plain mean would be 4.
    assert row["nats_per_token"] == pytest.approx(3 * math.log(2), rel=1e-6)
    assert row["perplexity"] == pytest.approx(8.0, rel=1e-6)
    # One document drawn twice: 6 bits over 8 bytes, or 6 over 4.
    assert row["low"] == pytest.approx(0.75, rel=1e-6) and row["high"] == pytest.approx(1.5, rel=1e-6)


def test_no_bytes_are_no_number_and_a_hopeless_loss_has_a_finite_perplexity():
    assert math.isnan(bits_per_byte(1.0, 0))
    assert math.isfinite(summarize([np.array([1e6])], [np.array([1])], 10)["perplexity"])


def test_one_document_has_no_interval():
    row = summarize([np.ones(5)], [np.ones(5, np.int32)], 100)
    assert row["low"] is None and row["high"] is None


def test_an_interval_holds_the_estimate_and_narrows_with_documents():
    generator = np.random.default_rng(0)

    def width(documents):
        bytes_D = generator.integers(500, 1500, documents)
        nats_D = bytes_D * generator.normal(1.4, 0.2, documents)
        low, high = interval(nats_D, bytes_D, 1000)
        assert low < bits_per_byte(nats_D.sum(), int(bytes_D.sum())) < high
        assert interval(nats_D, bytes_D, 1000) == (low, high)
        return high - low

    # The standard error falls with the root of the number of documents: 4 times fewer from 8 to 128.
    assert 2 < width(8) / width(128) < 8
    # And it is about what the normal approximation says: 2 × 1.96 × 0.2 / √128 nats, in bits.
    assert width(128) == pytest.approx(2 * 1.96 * 0.2 / math.sqrt(128) / math.log(2), rel=0.4)


@given(length=st.integers(1, 5000), per_octave=st.integers(1, 4))
def test_buckets_cover_every_position_once(length, per_octave):
    buckets = log_buckets(length, per_octave)
    assert buckets[0][0] == 0 and buckets[-1][1] == length
    assert all(low < high for low, high in buckets)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(buckets))


def test_loss_by_position_counts_every_token_where_it_stood():
    # A window of 32 and one of 20 in one document, one of 32 in another; the loss of a token is its position.
    positions = [np.concatenate([np.arange(32), np.arange(20)]), np.arange(32)]
    nats = [part.astype(np.float32) for part in positions]
    rows = by_position(nats, [np.full(52, 2), np.full(32, 2)], positions, 32)
    assert [(row["from"], row["to"], row["tokens"]) for row in rows] == [(0, 16, 48), (16, 22, 16), (22, 32, 20)]
    means = [7.5, (2 * np.arange(16, 22).sum() + np.arange(16, 20).sum()) / 16, 26.5]
    assert [row["nats_per_token"] for row in rows] == means
    assert rows[2]["bits_per_byte"] == pytest.approx(26.5 / 2 / math.log(2))

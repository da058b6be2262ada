"""A table: what it holds, and how lengths that are undefined or fail are told apart from numbers."""

import json
import math

import numpy as np
import pytest

from experiments.evaluation import suite
from experiments.evaluation.config import EvaluationConfig
from experiments.evaluation.suite import Text, choose_text, evaluate_series
from models.config import ModelConfig
from models.errors import InvalidInput
from models.positions.learned import Learned
from train.corpora.corpus import Document
from train.store import TokenStore
from train.tokenizers.byte import ByteTokenizer

CONFIG = EvaluationConfig(lengths=(4, 8, 16), context_bytes=(8,), final_tokens=2, resamples=10)
MODEL = ModelConfig(vocabulary_size=257, layers=1, width=16, heads=2)
TEXT = Text(
    [np.arange(21, dtype=np.int32), np.arange(11, dtype=np.int32)], [np.full(20, 2), np.full(10, 2)], ("a", "b")
)


@pytest.fixture(autouse=True)
def a_model_of_one_nat(monkeypatch):
    """Scores without a network: one nat a token."""

    def score(model, parameters, documents, windows, length, batch_tokens):
        return [np.ones(window.stop - window.scored, np.float32) for window in windows]

    monkeypatch.setattr(suite, "score_windows", score)


def rows(result):
    return {(row["length"], row["protocol"]): row for row in result["rows"]}


def test_every_length_is_measured_under_both_protocols_on_the_same_tokens():
    result = evaluate_series(lambda length: MODEL, {}, TEXT, CONFIG)
    table = rows(result)
    assert len(table) == 6 and result["documents"] == 2
    for (length, protocol), row in table.items():
        assert row["status"] == "ok" and row["tokens"] == 30 and row["bytes"] == 60
        assert row["bits_per_byte"] == pytest.approx(1 / math.log(2) / 2)
        assert row["stride"] == (length if protocol == "non_overlapping" else length // 4)
    assert result["by_position"]["length"] == 16
    assert sum(bucket["tokens"] for bucket in result["by_position"]["buckets"]) == 30
    # 8 bytes are 4 of these tokens.
    assert [(row["context_bytes"], row["length"], row["tokens"]) for row in result["equal_bytes"]] == [(8, 4, 30)]
    gain = result["context_gain"]
    assert gain["final_tokens"] == 2
    # One stretch of 16 in the first document, none in the second.
    assert [(point["context"], point["tokens"]) for point in gain["points"]] == [(2, 2), (4, 2), (8, 2), (16, 2)]
    json.dumps(result, allow_nan=False)


def test_a_length_beyond_a_learned_table_is_undefined_and_no_number():
    table_of_eight = MODEL.replace(position=Learned(length=8))
    result = evaluate_series(lambda length: table_of_eight, {}, TEXT, CONFIG)
    for (length, _), row in rows(result).items():
        assert row["status"] == ("undefined" if length == 16 else "ok")
        assert ("bits_per_byte" in row) == (length <= 8)
    assert "at most 8" in rows(result)[16, "sliding"]["reason"]
    assert result["by_position"]["length"] == 8
    assert max(point["context"] for point in result["context_gain"]["points"]) == 8


@pytest.mark.parametrize("error", [MemoryError("out of memory\nsecond line"), MemoryError(), None])
def test_a_length_that_fails_says_why_and_stops_no_other(monkeypatch, error):
    def score(model, parameters, documents, windows, length, batch_tokens):
        if length == 16 and error is not None:
            raise error
        value = np.float32(np.nan if length == 16 else 1)
        return [np.full(window.stop - window.scored, value) for window in windows]

    monkeypatch.setattr(suite, "score_windows", score)
    result = evaluate_series(lambda length: MODEL, {}, TEXT, CONFIG)
    for (length, _), row in rows(result).items():
        assert row["status"] == ("failed" if length == 16 else "ok")
    reason = rows(result)[16, "non_overlapping"]["reason"]
    assert reason == (str(error).split("\n")[0] or "MemoryError" if error else "the loss of 30 tokens is not finite")
    assert rows(result)[16, "sliding"]["again"] == (error is not None)
    assert [point["context"] for point in result["context_gain"]["points"]] == [2, 4, 8]
    json.dumps(result, allow_nan=False)


def test_a_context_that_is_not_finite_has_no_point(monkeypatch):
    def score(model, parameters, documents, windows, length, batch_tokens):
        whole = any(window.scored == window.start for window in windows)
        value = np.float32(np.inf if length == 8 and not whole else 1)
        return [np.full(window.stop - window.scored, value) for window in windows]

    monkeypatch.setattr(suite, "score_windows", score)
    gain = suite.context_gain(lambda length: MODEL, {}, TEXT, 16, CONFIG)
    assert [point["context"] for point in gain["points"]] == [2, 4, 16]


def test_a_length_that_no_document_holds_is_undefined_and_context_grows_up_to_it():
    longer = EvaluationConfig(lengths=(4, 16, 64), final_tokens=2, resamples=10)
    result = evaluate_series(lambda length: MODEL, {}, TEXT, longer)
    assert {length: row["status"] for (length, _), row in rows(result).items()} == {4: "ok", 16: "ok", 64: "undefined"}
    reason = (
        "evaluation.lengths = 64 is not allowed; it must be at most 20, the tokens to predict in the longest document"
    )
    assert rows(result)[64, "sliding"]["reason"].startswith(reason)
    assert [point["context"] for point in result["context_gain"]["points"]] == [2, 4, 8, 16]
    wide = EvaluationConfig(lengths=(4,), final_tokens=8, resamples=10)
    assert evaluate_series(lambda length: MODEL, {}, TEXT, wide)["context_gain"] is None


def test_models_that_reach_less_far_are_scored_on_the_same_final_tokens(monkeypatch):
    scored: dict[int, set] = {}

    def score(model, parameters, documents, windows, length, batch_tokens):
        if all(window.scored > window.start for window in windows):
            limit = model.position.length or 0
            scored.setdefault(limit, set()).update((window.scored, window.stop) for window in windows)
        return [np.ones(window.stop - window.scored, np.float32) for window in windows]

    monkeypatch.setattr(suite, "score_windows", score)
    for limit in (8, 16):
        suite.context_gain(lambda length, limit=limit: MODEL.replace(position=Learned(limit)), {}, TEXT, limit, CONFIG)
    assert scored == {8: {(14, 16)}, 16: {(14, 16)}}


def test_the_hash_of_a_text_is_that_of_its_bytes_whatever_the_tokens():
    halves = Text([np.arange(11), np.arange(6)], [np.full(10, 4), np.full(5, 4)], TEXT.names)
    assert halves.hash() == TEXT.hash()
    assert TEXT._replace(names=("a", "c")).hash() != TEXT.hash() != TEXT._replace(byte_lengths=halves.tokens).hash()


def store(folder, *sizes):
    documents = [Document(str(i), "x" * size) for i, size in enumerate(sizes)]
    return TokenStore.build(folder, documents, ByteTokenizer())


def test_documents_that_hold_the_longest_window_come_first_in_their_order(tmp_path):
    lengths = (8, 16)
    chosen = choose_text(store(tmp_path / "a", 3, 20, 12, 30, 16), EvaluationConfig(lengths=lengths, documents=3))
    assert [len(ids) - 1 for ids in chosen.tokens] == [20, 30, 16]
    chosen = choose_text(store(tmp_path / "b", 3, 5, 30, 1), EvaluationConfig(lengths=lengths, documents=3))
    assert [len(ids) - 1 for ids in chosen.tokens] == [30, 5, 3]
    chosen = choose_text(
        store(tmp_path / "c", 40, 30), EvaluationConfig(lengths=lengths, documents=2, tokens_per_document=25)
    )
    assert [(len(ids), len(sizes)) for ids, sizes in zip(chosen.tokens, chosen.byte_lengths, strict=True)] == [
        (26, 25)
    ] * 2
    whole = choose_text(store(tmp_path / "d", 40, 30), EvaluationConfig(lengths=lengths, tokens_per_document=0))
    assert [len(sizes) for sizes in whole.byte_lengths] == [40, 30]
    assert all(int(sizes.sum()) == len(sizes) for sizes in whole.byte_lengths)


def test_text_of_nothing_to_score_is_refused():
    class Empty:
        document_starts = np.array([0, 1, 2])

        def document(self, index):
            return np.zeros(1, np.int32), np.zeros(1, np.int32)

    with pytest.raises(InvalidInput, match="no document of two or more tokens"):
        choose_text(Empty(), CONFIG)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lengths": ()}, "lengths"),
        ({"lengths": (0,)}, "lengths"),
        ({"stride_share": 0.0}, "stride_share"),
        ({"stride_share": 1.5}, "stride_share"),
        ({"scalings": ("yarm",)}, "scalings = 'yarm' is not allowed; it must be one of"),
        ({"documents": 0}, "documents"),
        ({"tokens_per_document": -1}, "tokens_per_document"),
        (
            {"attribution": (8192,), "tokens_per_document": 4096},
            "tokens_per_document = 4096 is not allowed; it must be at least 8192, the longest of lengths and ",
        ),
        ({"context_bytes": (0,)}, "context_bytes"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes, words):
    with pytest.raises(InvalidInput, match=words):
        EvaluationConfig(**changes)

"""The token store returns exactly what was put in, and its byte lengths account for every byte of text."""

import json
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InvalidInput
from train.corpora import Document
from train.store import TokenStore


@dataclass
class ByteTokenizer:
    """A token per `step` bytes, whose id is the first of them; 256 is the boundary."""

    step: int = 1
    vocabulary_size: int = 257
    boundary_id: int = 256
    hash: str = "bytes"

    def encode_with_lengths(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        data = np.frombuffer(text.encode(), np.uint8)
        starts = np.arange(0, len(data), self.step)
        return data[starts].astype(np.int32), np.minimum(self.step, len(data) - starts).astype(np.int32)


def documents(*texts: str) -> list[Document]:
    return [Document(f"d{i}", text) for i, text in enumerate(texts)]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text(min_size=1, max_size=30), min_size=2, max_size=6), st.integers(1, 3))
def test_a_round_trip_is_exact(tmp_path_factory, texts, step):
    folder = tmp_path_factory.mktemp("store")
    tokenizer = ByteTokenizer(step)
    if sum(len(tokenizer.encode_with_lengths(text)[0]) for text in texts) < 2:
        return
    TokenStore.build(folder, iter(documents(*texts)), tokenizer)
    store = TokenStore.open(folder)
    assert store.document_names == tuple(f"d{i}" for i in range(len(texts)))
    assert store.byte_count == sum(len(text.encode()) for text in texts) == store.byte_lengths.sum(dtype=np.int64)
    assert store.token_count == len(store.tokens) == store.document_starts[-1]
    assert store.document_starts.dtype == np.int64
    for i, text in enumerate(texts):
        ids, lengths = store.document(i)
        expected_ids, expected_lengths = tokenizer.encode_with_lengths(text)
        assert ids.dtype == lengths.dtype == np.int32
        assert (ids[0], lengths[0]) == (tokenizer.boundary_id, 0)
        np.testing.assert_array_equal(ids[1:], expected_ids)
        np.testing.assert_array_equal(lengths[1:], expected_lengths)


@pytest.mark.parametrize(("vocabulary_size", "dtype"), [(65536, np.uint16), (65537, np.uint32)])
def test_ids_take_the_room_their_number_needs(tmp_path, vocabulary_size, dtype):
    tokenizer = ByteTokenizer(vocabulary_size=vocabulary_size, boundary_id=vocabulary_size - 1)
    store = TokenStore.build(tmp_path, documents("ab"), tokenizer)
    assert store.tokens.dtype == dtype
    assert store.tokens.tolist() == [vocabulary_size - 1, ord("a"), ord("b")]
    assert isinstance(store.tokens, np.memmap) and isinstance(store.byte_lengths, np.memmap)


def test_documents_are_read_one_at_a_time(tmp_path):
    def reading():
        for i in range(3):
            yield Document(f"d{i}", "text")
            # By the time the next is asked for, this one is with the files.
            alive.append(i)

    alive = []
    TokenStore.build(tmp_path, reading(), ByteTokenizer())
    assert alive == [0, 1, 2]


def test_documents_without_text_are_left_out(tmp_path):
    store = TokenStore.build(tmp_path, documents("", "ab", ""), ByteTokenizer())
    assert store.document_names == ("d1",)
    assert store.document_starts.tolist() == [0, 3]


@pytest.mark.parametrize(("texts", "count"), [((), 0), (("", ""), 0), (("a",), 1)])
def test_empty_and_one_token_corpora_are_refused(tmp_path, texts, count):
    with pytest.raises(InvalidInput, match=rf"data\.corpus holds .* {count} tokens in all; it must hold at least 2"):
        TokenStore.build(tmp_path, documents(*texts), ByteTokenizer())


def test_a_token_of_too_many_bytes_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="'d0' stands for more than 65535 bytes"):
        TokenStore.build(tmp_path, documents("a" * 70_000), ByteTokenizer(step=66_000))


def test_the_hash_follows_tokens_boundaries_and_tokenizer(tmp_path):
    def build(name: str, texts: tuple[str, ...], tokenizer: ByteTokenizer) -> str:
        return TokenStore.build(tmp_path / name, documents(*texts), tokenizer).hash

    same = build("a", ("ab", "c"), ByteTokenizer())
    assert build("b", ("ab", "c"), ByteTokenizer()) == same
    assert build("c", ("ac", "b"), ByteTokenizer()) != same
    assert build("d", ("a", "bc"), ByteTokenizer()) != same
    assert build("e", ("ab", "c"), ByteTokenizer(hash="other")) != same


def test_missing_and_damaged_stores_are_noticed(tmp_path):
    with pytest.raises(InvalidInput, match="holds no token store"):
        TokenStore.open(tmp_path / "nowhere")
    TokenStore.build(tmp_path, documents("abc"), ByteTokenizer())
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert meta["token_count"] == 4
    (tmp_path / "tokens.bin").write_bytes(b"\0" * 7)
    with pytest.raises(InvalidInput, match=r"tokens\.bin is damaged: it holds 7 bytes, it must hold 8"):
        TokenStore.open(tmp_path)
    (tmp_path / "meta.json").write_text("{")
    with pytest.raises(InvalidInput, match="holds no token store"):
        TokenStore.open(tmp_path)


def test_little_endian_on_disk(tmp_path):
    TokenStore.build(tmp_path, documents("ab"), ByteTokenizer())
    assert (tmp_path / "tokens.bin").read_bytes() == bytes([0, 1, ord("a"), 0, ord("b"), 0])
    assert sys.byteorder == "little" or TokenStore.open(tmp_path).tokens.tolist() == [256, ord("a"), ord("b")]

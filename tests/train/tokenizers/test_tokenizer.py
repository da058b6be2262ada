"""Promises of every tokenizer: bytes accounted for, boundaries kept apart, exactness as stated, exact save and load."""

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InvalidInput
from tests.train.tokenizers.samples import FILES, TEXTS, TRAINED
from train.tokenizers import load_tokenizer
from train.tokenizers.tokenizer import byte_offsets, character_bytes, lengths_from_spans

EVERY = [*TRAINED, *FILES]
LOSSLESS = ["byte", "byte_bpe", "bpe", "unigram", "byte_level.json", "ranks.tiktoken"]
HARD = [
    "",
    " ",
    "   ",
    "\n",
    "\n\n\n",
    "\r\n",
    "\x00",
    "  leading and trailing  ",
    "a  b\t\tc\n d",
    "e\u0301 \u0301 ﬁ ① Å ½ Ａ",
    "👩\u200d👩\u200d👧 🇩🇪 😀",
    "\ufeffBOM \ufffd \u2581▁ ▅",
    "<|endoftext|> </s> <s> <unk> [UNK] [SEP] ## <0x41> \ufffd",
    "line one\r\nline two\r\n  東京 größe\x1c\x85\u2028\u3000end",
    "x" * 300,
]
# Pieces that break naive offsets, between arbitrary characters.
texts = st.lists(st.one_of(st.text(max_size=8), st.sampled_from(HARD), st.sampled_from(["The ", " of", "\n    "]))).map(
    "".join
)


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=60, deadline=None)
@given(text=texts)
def test_every_byte_is_counted_once(tokenizers_by_name, name, text):
    tokenizer = tokenizers_by_name[name]
    ids, lengths = tokenizer.encode_with_lengths(text)
    assert ids.dtype == lengths.dtype == np.int32
    assert ids.shape == lengths.shape
    assert lengths.sum() == len(text.encode())
    assert (lengths >= 0).all()
    assert (len(ids) > 0) == (text != "")
    np.testing.assert_array_equal(ids, tokenizer.encode(text))
    assert tokenizer.boundary_id not in ids
    assert ((ids >= 0) & (ids < tokenizer.vocabulary_size)).all()
    assert isinstance(tokenizer.decode(ids), str)
    if tokenizer.lossless:
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("name", EVERY)
def test_hard_texts(tokenizers_by_name, name):
    tokenizer = tokenizers_by_name[name]
    for text in [*HARD, "".join(HARD), *TEXTS]:
        ids, lengths = tokenizer.encode_with_lengths(text)
        assert lengths.sum() == len(text.encode())
        assert tokenizer.boundary_id not in ids
        if tokenizer.lossless:
            assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("name", EVERY)
def test_exactness_is_stated(tokenizers_by_name, name):
    tokenizer = tokenizers_by_name[name]
    assert tokenizer.lossless == (name in LOSSLESS)
    assert tokenizer.statement.startswith("Exact: ") == tokenizer.lossless
    assert tokenizer.statement.endswith(".")


@pytest.mark.parametrize("name", EVERY)
def test_decode_skips_boundaries_and_refuses_other_ids(tokenizers_by_name, name):
    tokenizer = tokenizers_by_name[name]
    ids = tokenizer.encode("The class")
    with_boundaries = np.concatenate([[tokenizer.boundary_id], ids, [tokenizer.boundary_id]])
    assert tokenizer.decode(with_boundaries) == tokenizer.decode(ids)
    assert tokenizer.decode([]) == ""
    with pytest.raises(InvalidInput, match="token id = -1 is not allowed"):
        tokenizer.decode([-1])
    with pytest.raises(InvalidInput, match=f"token id = {tokenizer.vocabulary_size} is not allowed"):
        tokenizer.decode([tokenizer.vocabulary_size])


@pytest.mark.parametrize("name", LOSSLESS)
def test_lengths_are_those_of_each_token(tokenizers_by_name, name):
    """A prefix of the tokens stands for exactly the first bytes of the text, also within a character."""
    tokenizer = tokenizers_by_name[name]
    text = "naïve 😀 ▁ end"
    ids, lengths = tokenizer.encode_with_lengths(text)
    for count in range(len(ids) + 1):
        prefix = text.encode()[: lengths[:count].sum()]
        assert tokenizer.decode(ids[:count]) == prefix.decode(errors="replace")


@pytest.mark.parametrize("name", EVERY)
def test_save_and_load(tokenizers_by_name, name, tmp_path):
    tokenizer = tokenizers_by_name[name]
    tokenizer.save(tmp_path / "new" / "folder")
    loaded = load_tokenizer(tmp_path / "new" / "folder")
    assert loaded.hash == tokenizer.hash
    for attribute in ("vocabulary_size", "boundary_id", "lossless", "statement"):
        assert getattr(loaded, attribute) == getattr(tokenizer, attribute)
    for text in [TEXTS[0], TEXTS[-1], *HARD]:
        for one, other in zip(tokenizer.encode_with_lengths(text), loaded.encode_with_lengths(text), strict=True):
            np.testing.assert_array_equal(one, other)
    assert loaded.decode(tokenizer.encode(TEXTS[-1])) == tokenizer.decode(tokenizer.encode(TEXTS[-1]))


def test_saving_leaves_no_other_files_and_replaces(tokenizers_by_name, tmp_path):
    tokenizers_by_name["byte_bpe"].save(tmp_path)
    tokenizers_by_name["byte_level.json"].save(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["meta.json", "tokenizer.json"]
    assert load_tokenizer(tmp_path).hash == tokenizers_by_name["byte_level.json"].hash


def test_a_failed_write_keeps_what_was_there(tokenizers_by_name, tmp_path, monkeypatch):
    tokenizers_by_name["character"].save(tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        tokenizers_by_name["word"].save(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["meta.json", "vocabulary.json"]
    assert load_tokenizer(tmp_path).hash == tokenizers_by_name["character"].hash


def _damage_content(folder):
    content = bytearray((folder / "tokenizer.json").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "tokenizer.json").write_bytes(content)


def _damage_details(folder):
    meta = json.loads((folder / "meta.json").read_text())
    meta["details"]["boundary_id"] = 5
    (folder / "meta.json").write_text(json.dumps(meta))


def _change_kind(folder):
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"kind": "telepathy"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "meta.json").unlink(), "meta.json is missing"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda folder: (folder / "meta.json").write_text('{"kind": "hugg'), "meta.json cannot be read"),
        (lambda folder: (folder / "meta.json").write_text("[]"), "meta.json cannot be read"),
        (lambda folder: (folder / "meta.json").write_bytes(b"\xff"), "meta.json cannot be read"),
        (_damage_content, "does not match the hash"),
        (_damage_details, "does not match the hash"),
        (_change_kind, "tokenizer kind = 'telepathy' is not allowed"),
    ],
)
def test_damage_is_noticed(tokenizers_by_name, tmp_path, damage, message):
    tokenizers_by_name["byte_bpe"].save(tmp_path)
    damage(tmp_path)
    with pytest.raises(InvalidInput, match=message) as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"no tokenizer in .*nowhere"):
        load_tokenizer(tmp_path / "nowhere")


@given(st.text())
def test_character_bytes(text):
    expected = [len(character.encode()) for character in text]
    assert character_bytes(text).tolist() == expected
    assert byte_offsets(text).tolist() == [sum(expected[:i]) for i in range(len(text) + 1)]


@pytest.mark.parametrize(
    ("starts", "ends", "own", "total", "expected"),
    [
        ([0, 3], [2, 5], [2, 2], 6, [2, 4]),  # a dropped byte goes to the next token, the end to the last
        ([0, 0, 0], [3, 3, 3], [1, 1, 1], 3, [1, 1, 1]),  # each byte token spans the whole character
        ([0, 0, 0], [0, 0, 3], [1, 1, 1], 3, [1, 1, 1]),  # the last one does
        ([1, 1], [3, 3], [1, 1], 3, [2, 1]),  # as above, after a dropped byte
        ([0, 0], [0, 3], [1, 3], 3, [0, 3]),  # a space put in front stands for nothing in the text
        ([0, 2], [3, 3], [2, 2], 3, [3, 0]),  # own bytes that do not add up are not believed
        ([], [], [], 0, []),
    ],
)
def test_lengths_from_spans(starts, ends, own, total, expected):
    arrays = [np.array(values, np.int64) for values in (starts, ends, own)]
    assert lengths_from_spans(*arrays, total).tolist() == expected

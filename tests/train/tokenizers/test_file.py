"""Tokenizers from files: which file is what, which id is the boundary, what is left aside."""

import base64
import os

import numpy as np
import pytest
import tokenizers

from models.errors import InvalidInput
from tests.train.tokenizers.samples import TEXTS, byte_level_file, ranks_file, recipe, sentence_piece_file
from train.tokenizers import load_tokenizer
from train.tokenizers.hugging_face import HuggingFaceTokenizer
from train.tokenizers.ranks import GPT_4, PUBLISHED, RanksTokenizer
from train.tokenizers.sentence_piece import SentencePieceTokenizer


def read(path, content: bytes):
    path.write_bytes(content)
    return recipe("file", path=str(path)).train([])


def test_files_are_told_apart_by_their_content(tmp_path):
    assert isinstance(read(tmp_path / "tokenizer.model", ranks_file()), RanksTokenizer)
    assert isinstance(read(tmp_path / "spiece", sentence_piece_file()), SentencePieceTokenizer)
    assert isinstance(read(tmp_path / "vocabulary", byte_level_file()), HuggingFaceTokenizer)


def test_the_file_is_loaded_whatever_the_texts_and_saved_as_it_is(tmp_path):
    content = byte_level_file()
    tokenizer = read(tmp_path / "a.json", content)
    assert tokenizer.hash == recipe("file", path=str(tmp_path / "a.json")).train(TEXTS).hash
    tokenizer.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.json").read_bytes() == content
    assert load_tokenizer(tmp_path / "saved").hash == tokenizer.hash


def test_ids_are_those_of_the_library(tmp_path):
    """Equal to the library's own on ordinary text, without the truncation and padding that the file asks for."""
    content = byte_level_file()
    library = tokenizers.Tokenizer.from_str(content.decode())
    library.no_truncation()
    library.no_padding()
    tokenizer = read(tmp_path / "a.json", content)
    for text in TEXTS:
        np.testing.assert_array_equal(tokenizer.encode(text), library.encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize(
    ("special", "boundary"),
    [(["<s>", "<|endoftext|>"], "<|endoftext|>"), (["<s>", "</s>"], "</s>"), (["[MASK]"], None), ([], None)],
)
def test_the_boundary_of_a_json_file(tmp_path, special, boundary):
    content = byte_level_file(special=special)
    library = tokenizers.Tokenizer.from_str(content.decode())
    tokenizer = read(tmp_path / "a.json", content)
    size = library.get_vocab_size()
    if boundary is None:
        assert (tokenizer.boundary_id, tokenizer.vocabulary_size) == (size, size + 1)
    else:
        assert (tokenizer.boundary_id, tokenizer.vocabulary_size) == (library.token_to_id(boundary), size)


def test_a_special_token_that_text_can_be_encoded_as_is_no_boundary(tmp_path):
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"</s>": 0, "a": 1, "<unk>": 2}, unk_token="<unk>"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    library.add_special_tokens(["</s>"])
    tokenizer = read(tmp_path / "a.json", library.to_str().encode())
    assert tokenizer.encode("a </s>").tolist() == [1, 0]
    assert tokenizer.boundary_id == 3


def test_a_kind_without_unknown_token_gets_one(tokenizers_by_name):
    tokenizer = tokenizers_by_name["no_unknown.json"]
    assert tokenizer.vocabulary_size == 500 + 2
    _, lengths = tokenizer.encode_with_lengths("\n 東亰龘\n")
    assert lengths.sum() == len("\n 東亰龘\n".encode())
    unknown, lengths = tokenizer.encode_with_lengths("   ")
    assert lengths.tolist() == [3]
    assert unknown[0] >= 500
    assert tokenizer.decode(unknown) == ""


def test_dropout_is_switched_off(tmp_path):
    library = tokenizers.Tokenizer.from_str(byte_level_file().decode())
    library.model.dropout = 0.5
    tokenizer = read(tmp_path / "a.json", library.to_str().encode())
    first = tokenizer.encode(TEXTS[0])
    np.testing.assert_array_equal(first, tokenizer.encode(TEXTS[0]))


@pytest.mark.parametrize(("settings", "boundary"), [({}, 2), ({"eos_id": -1}, 1), ({"eos_id": -1, "bos_id": -1}, 500)])
def test_the_boundary_of_a_sentencepiece_model(tmp_path, settings, boundary):
    tokenizer = read(tmp_path / "a.model", sentence_piece_file(**settings))
    assert tokenizer.boundary_id == boundary
    assert tokenizer.vocabulary_size == max(500, boundary + 1)


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("default.model", ["nmt_nfkc", "runs of spaces", "outside the vocabulary", "▁"]),
        ("llama.model", ["▁"]),
        ("byte_level_nfc.json", ["NFC"]),
        ("bert.json", ["BertNormalizer", "WordPiece"]),
    ],
)
def test_what_is_lost_is_said(tokenizers_by_name, name, lost):
    reasons = tokenizers_by_name[name].statement.removeprefix("Not exact: ").split("; ")
    assert len(reasons) == len(lost)
    for reason, word in zip(reasons, lost, strict=True):
        assert word in reason


@pytest.mark.parametrize("name", ["llama.model", "llama.json"])
def test_lengths_of_byte_tokens_behind_a_space_put_in_front(tokenizers_by_name, name):
    _, lengths = tokenizers_by_name[name].encode_with_lengths("\U0001f92a")
    assert lengths.tolist() == [0, 1, 1, 1, 1]


def test_ranks(tmp_path):
    tokenizer = read(tmp_path / "a.tiktoken", ranks_file())
    ids, lengths = tokenizer.encode_with_lengths("the thé")
    assert ids.tolist() == [257, ord(" "), 256, 261]
    assert lengths.tolist() == [3, 1, 2, 2]
    assert (tokenizer.boundary_id, tokenizer.vocabulary_size) == (264, 265)


def test_published_ranks_are_recognised_by_their_number():
    pieces = [bytes([value]) for value in range(256)] + [b"%05d" % number for number in range(100_000)]
    content = b"".join(base64.b64encode(piece) + b" %d\n" % rank for rank, piece in enumerate(pieces))
    tokenizer = RanksTokenizer.from_ranks(content)
    assert (tokenizer.boundary_id, tokenizer.vocabulary_size) == (100_257, 100_258)
    assert PUBLISHED[100_256].pattern == GPT_4


@pytest.mark.parametrize("pattern", sorted({published.pattern for published in PUBLISHED.values()}))
def test_published_patterns_cut_all_of_a_text(pattern):
    tokenizer = RanksTokenizer(ranks_file(), pattern, 264)
    text = "I'LL say: naïve café's 12345 ½ e\u0301\u0301 — \t\r\n\n  \x00 \u3000 😀\u200d end  "
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"version": "1.0"}', "not a tokenizers JSON file"),
        (b'{"model": {"vocab": {"a": 0}}', "not a tokenizers JSON file"),
        (b"\xff\xfe garbage", "not a SentencePiece model"),
        (b"", "the content is empty"),
        (b"once upon a time\n", "not a SentencePiece model"),
        (b"YQ== 0\nYg== 1\n", "byte 0 has no rank"),
        (ranks_file() + b"dGg= 300\n", "line 265 repeats a token"),
        (ranks_file() + b"YWJj 3\n", "two tokens have the same rank"),
        (ranks_file() + b"YWJj x\n", "line 265 is not"),
    ],
)
def test_files_of_no_known_kind_are_refused(tmp_path, capfd, content, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        read(tmp_path / "odd.bin", content)
    line = str(caught.value)
    assert line.startswith(f"tokenizer.path = {str(tmp_path / 'odd.bin')!r} is not allowed; it must be the path of ")
    assert "\n" not in line
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"tokenizer\.path = .* there is no such file"):
        recipe("file", path=str(tmp_path / "none.json")).train([])
    with pytest.raises(InvalidInput, match=r"^path = ''"):
        recipe("file", path="")


def test_the_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "HOME", str(tmp_path))
    (tmp_path / "a.tiktoken").write_bytes(ranks_file())
    assert recipe("file", path="~/a.tiktoken").train([]).vocabulary_size == 265

"""What distinguishes the simple kinds: which tokens a text has."""

import pytest

from tests.train.tokenizers.samples import TEXTS, recipe
from train.tokenizers.character import Character
from train.tokenizers.word import Word


def test_bytes():
    tokenizer = recipe("byte").train([])
    assert tokenizer.encode("aé").tolist() == [0x61, 0xC3, 0xA9]
    assert (tokenizer.vocabulary_size, tokenizer.boundary_id) == (257, 256)


def test_characters_are_the_most_frequent():
    tokenizer = Character(vocabulary_size=4).train(["aaa", "éé", "zb"])
    ids, lengths = tokenizer.encode_with_lengths("aéz😀")
    assert tokenizer.decode(ids) == "aé\ufffd\ufffd"
    assert lengths.tolist() == [1, 2, 1, 4]
    assert ids[2] == ids[3] not in ids[:2]


def test_all_characters_seen_round_trip():
    tokenizer = Character().train(TEXTS)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_words_and_marks():
    tokenizer = Word(vocabulary_size=6).train(["to be, or not to be, to"])
    text = "  to\nbe,  Größe! "
    ids, lengths = tokenizer.encode_with_lengths(text)
    assert tokenizer.decode(ids) == "to be , \ufffd \ufffd"
    assert lengths.tolist() == [4, 3, 1, 9, 2]
    # The spaces alone still have a token that counts them.
    ids, lengths = tokenizer.encode_with_lengths(" \u3000")
    assert lengths.tolist() == [4]


def test_wordpiece_marks_and_drops_white_space():
    tokenizer = recipe("wordpiece", vocabulary_size=10).train(["abab ab aab"])
    ids, lengths = tokenizer.encode_with_lengths("ab  abab\n東 ")
    assert tokenizer.decode(ids) == "ab abab [UNK]"
    assert lengths.sum() == len("ab  abab\n東 ".encode())
    assert lengths[-1] == 5


@pytest.mark.parametrize("name", ["bpe", "unigram"])
def test_byte_fallback_and_the_space_sign(tokenizers_by_name, name):
    tokenizer = tokenizers_by_name[name]
    _, lengths = tokenizer.encode_with_lengths("\U0001f92a")
    assert lengths.tolist() == [1, 1, 1, 1]
    assert tokenizer.decode(tokenizer.encode("a▁ b")) == "a▁ b"


def test_long_lines_are_learned_from():
    """SentencePiece by itself skips sentences beyond 4192 bytes."""
    tokenizer = recipe("bpe", vocabulary_size=268).train(["abcdefgh" * 1000])
    assert len(tokenizer.encode("abcdefgh")) < 8

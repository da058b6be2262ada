"""The numbers a tokenizer is described by."""

import pytest

from models.errors import InvalidInput
from tests.train.tokenizers.samples import TEXTS, recipe
from train.tokenizers import tokenizer_report


def test_report_counts_bytes_tokens_and_words():
    report = tokenizer_report(recipe("byte").train([]), ["ab cdé", "x\n"])
    assert report.vocabulary_size == 257
    assert report.bytes_per_token == 1.0
    assert report.tokens_per_word == 9 / 3
    assert report.lossless
    assert str(report) == "vocabulary 257, 1.00 bytes per token, 3.00 tokens per word. " + report.statement


def test_merges_make_fewer_tokens(tokenizers_by_name):
    text = TEXTS
    reports = {name: tokenizer_report(tokenizers_by_name[name], text) for name in ("byte", "byte_bpe", "word")}
    assert reports["byte"].tokens_per_word > reports["byte_bpe"].tokens_per_word > reports["word"].tokens_per_word
    assert reports["byte_bpe"].bytes_per_token > 1.5
    assert not reports["word"].lossless


@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_text_without_words_is_refused(texts):
    with pytest.raises(InvalidInput, match="the text to measure a tokenizer on is empty"):
        tokenizer_report(recipe("byte").train([]), texts)

"""Tokenizers: trained on the training split, or loaded from a file. Importing the package registers every recipe."""

from train.tokenizers import bpe_and_unigram, byte, byte_bpe, character, file, word, wordpiece
from train.tokenizers.recipe import TokenizerRecipe
from train.tokenizers.report import TokenizerReport, tokenizer_report
from train.tokenizers.tokenizer import Tokenizer, load_tokenizer

__all__ = [
    "Tokenizer",
    "TokenizerRecipe",
    "TokenizerReport",
    "bpe_and_unigram",
    "byte",
    "byte_bpe",
    "character",
    "file",
    "load_tokenizer",
    "tokenizer_report",
    "word",
    "wordpiece",
]

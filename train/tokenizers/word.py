"""Words and punctuation marks as tokens; white space is dropped, words outside the vocabulary become unknown."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.errors import require
from train.tokenizers.recipe import TokenizerRecipe, nothing_to_learn, too_large, training_texts
from train.tokenizers.tokenizer import Tokenizer, byte_offsets, lengths_from_spans

UNKNOWN, BOUNDARY, SPECIAL = 0, 1, 2
WORD = re.compile(r"\w+|[^\w\s]")


@Tokenizer.kinds.register("word")
class WordTokenizer(Tokenizer):
    """Id 0 is the unknown word, 1 the boundary; words follow from the most to the least frequent."""

    file_name = "vocabulary.json"

    def __init__(self, content: bytes):
        words = json.loads(content)
        pieces = ["\ufffd".encode(), b"", *(word.encode() for word in words)]
        statement = (
            "Not exact: white space between words and marks decodes as one space,"
            f" and what is not among the {len(words)} words as U+FFFD."
        )
        super().__init__(content, {}, pieces, BOUNDARY, lossless=False, statement=statement)
        self._ids = {word: id for id, word in enumerate(words, SPECIAL)}

    def encode(self, text: str) -> np.ndarray:
        find = self._ids.get
        ids = [find(word, UNKNOWN) for word in WORD.findall(text)]
        return np.array(ids or [UNKNOWN] * bool(text), np.int32)

    def encode_with_lengths(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        ids = self.encode(text)
        ends = np.array([match.end() for match in WORD.finditer(text)] or [len(text)] * len(ids), np.int64)
        ends = byte_offsets(text)[ends]
        # Words share no characters: a word reaches from the end of the one before to its own end.
        return ids, lengths_from_spans(ends, ends, np.zeros_like(ends), len(text.encode()))

    def decode(self, ids: Any) -> str:
        """Words joined by single spaces."""
        kept = self._checked(ids)
        return b" ".join(self._pieces[id] for id in kept[kept != BOUNDARY].tolist()).decode()


@TokenizerRecipe.registry.register("word")
@dataclass(frozen=True)
class Word(TokenizerRecipe):
    """vocabulary_size: the most frequent words, besides the unknown one and the boundary."""

    vocabulary_size: int = 8192

    def __post_init__(self):
        size = self.vocabulary_size
        require(size > SPECIAL, "vocabulary_size", size, f"at least {SPECIAL + 1}")

    def train(self, texts: Iterable[str]) -> WordTokenizer:
        counts: Counter[str] = Counter()
        for text in training_texts(texts, self.name):
            counts.update(WORD.findall(text))
        if not counts:
            raise nothing_to_learn(self.name)
        if self.vocabulary_size > len(counts) + SPECIAL:
            raise too_large(self.vocabulary_size, len(counts) + SPECIAL)
        kept = sorted(counts, key=lambda word: (-counts[word], word))[: self.vocabulary_size - SPECIAL]
        return WordTokenizer(json.dumps(kept).encode())

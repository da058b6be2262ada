"""Characters (Unicode code points) as tokens; those outside the vocabulary become one unknown token."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from models.errors import require
from train.tokenizers.recipe import TokenizerRecipe, too_large, training_texts
from train.tokenizers.tokenizer import Tokenizer, character_bytes, code_points

UNKNOWN, BOUNDARY, SPECIAL = 0, 1, 2


@Tokenizer.kinds.register("character")
class CharacterTokenizer(Tokenizer):
    """Id 0 is the unknown character, 1 the boundary; characters follow in order of their code points."""

    file_name = "vocabulary.json"

    def __init__(self, content: bytes):
        characters = json.loads(content)
        pieces = ["\ufffd".encode(), b"", *(character.encode() for character in characters)]
        statement = (
            f"Exact for text of the {len(characters)} characters in the vocabulary; any other decodes as U+FFFD."
        )
        super().__init__(content, {}, pieces, BOUNDARY, lossless=False, statement=statement)
        self._codes = np.array([ord(character) for character in characters], np.uint32)

    def encode(self, text: str) -> np.ndarray:
        codes = code_points(text)
        place = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        return np.where(self._codes[place] == codes, place + SPECIAL, UNKNOWN).astype(np.int32)

    def encode_with_lengths(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        return self.encode(text), character_bytes(text)


@TokenizerRecipe.registry.register("character")
@dataclass(frozen=True)
class Character(TokenizerRecipe):
    """vocabulary_size: the most frequent characters, besides the unknown one and the boundary; None for all seen."""

    vocabulary_size: int | None = None

    def __post_init__(self):
        size = self.vocabulary_size
        require(size is None or size > SPECIAL, "vocabulary_size", size, f"None or at least {SPECIAL + 1}")

    def train(self, texts: Iterable[str]) -> CharacterTokenizer:
        counts: Counter[str] = Counter()
        for text in training_texts(texts, self.name):
            counts.update(text)
        kept = sorted(counts, key=lambda character: (-counts[character], character))
        if self.vocabulary_size is not None:
            if self.vocabulary_size > len(kept) + SPECIAL:
                raise too_large(self.vocabulary_size, len(kept) + SPECIAL)
            kept = kept[: self.vocabulary_size - SPECIAL]
        return CharacterTokenizer(json.dumps(sorted(kept)).encode())

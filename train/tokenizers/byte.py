"""Bytes as tokens: 256 ids for the UTF-8 bytes and one for the boundary. Nothing to train, no text it cannot hold."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from train.tokenizers.recipe import TokenizerRecipe
from train.tokenizers.tokenizer import EXACT, Tokenizer


@Tokenizer.kinds.register("byte")
class ByteTokenizer(Tokenizer):
    """Id b is byte b; id 256 is the boundary."""

    file_name = None

    def __init__(self, content: bytes = b""):
        pieces = [bytes([value]) for value in range(256)] + [b""]
        super().__init__(content, {}, pieces, boundary_id=256, lossless=True, statement=EXACT)

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def encode_with_lengths(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        ids = self.encode(text)
        return ids, np.ones_like(ids)


@TokenizerRecipe.registry.register("byte")
@dataclass(frozen=True)
class Byte(TokenizerRecipe):
    """The UTF-8 bytes themselves, as in ByT5 (Xue et al. 2022). Vocabulary of 257."""

    def train(self, texts: Iterable[str]) -> ByteTokenizer:
        """The byte tokenizer, whatever the texts; it looks at none of them."""
        return ByteTokenizer()

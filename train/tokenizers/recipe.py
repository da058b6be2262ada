"""How a tokenizer comes about: a configuration that trains one on text, or loads one."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from models.errors import InvalidInput, invalid
from models.registry import Registry
from train.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokenizerRecipe(ABC):
    """An alternative's fields are what its tokenizer depends on besides the text it is trained on.

    `vocabulary_size`, where there is one, counts every id of the tokenizer, the document boundary included.
    """

    registry: ClassVar[Registry] = Registry("tokenizer.name")
    name: ClassVar[str]

    @abstractmethod
    def train(self, texts: Iterable[str]) -> Tokenizer:
        """The tokenizer for `texts`, one string a document; the same one for the same texts in the same order.

        Raises InvalidInput where the texts are empty, or support no vocabulary of the size asked for.
        """


def training_texts(texts: Iterable[str], name: str) -> list[str]:
    """The texts that are not empty. Raises InvalidInput where none is left."""
    kept = [text for text in texts if text]
    if not kept:
        raise nothing_to_learn(name)
    return kept


def nothing_to_learn(name: str) -> InvalidInput:
    """The error for training text without anything that a tokenizer `name` could put into its vocabulary."""
    return InvalidInput(f"the training text is empty; tokenizer.name = {name!r} needs some text to learn from")


def too_large(vocabulary_size: int, most: int) -> InvalidInput:
    """The error for a vocabulary beyond what the text supports."""
    return invalid("tokenizer.vocabulary_size", vocabulary_size, f"at most {most}: the text supports no more")


def too_small(vocabulary_size: int, least: int) -> InvalidInput:
    """The error for a vocabulary that cannot hold the characters of the text."""
    return invalid("tokenizer.vocabulary_size", vocabulary_size, f"at least {least}: the characters need as many")

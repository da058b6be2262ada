"""What a tokenizer does to a text: how many bytes a token holds, how many tokens a word takes, whether text is kept."""

from collections.abc import Iterable
from dataclasses import dataclass

from models.errors import InvalidInput
from train.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokenizerReport:
    """bytes_per_token: UTF-8 bytes of the texts over their tokens. tokens_per_word: tokens over words, which are what
    stands between white space; the fragmentation. lossless and statement as of the tokenizer."""

    vocabulary_size: int
    bytes_per_token: float
    tokens_per_word: float
    lossless: bool
    statement: str

    def __str__(self) -> str:
        return (
            f"vocabulary {self.vocabulary_size}, {self.bytes_per_token:.2f} bytes per token, "
            f"{self.tokens_per_word:.2f} tokens per word. {self.statement}"
        )


def tokenizer_report(tokenizer: Tokenizer, texts: Iterable[str]) -> TokenizerReport:
    """Measures `tokenizer` on `texts`, boundaries not counted. Raises InvalidInput where the texts hold no word."""
    total = tokens = words = 0
    for text in texts:
        total += len(text.encode())
        tokens += len(tokenizer.encode(text))
        words += len(text.split())
    if words == 0:
        raise InvalidInput("the text to measure a tokenizer on is empty; it must hold at least one word")
    return TokenizerReport(
        tokenizer.vocabulary_size, total / tokens, tokens / words, tokenizer.lossless, tokenizer.statement
    )

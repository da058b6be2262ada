"""tiktoken rank files: a byte-level BPE as lines of `base64-of-the-bytes rank`, lower ranks merged first.

The file does not say how text is cut before merging; published vocabularies are recognised by their number of ranks.
"""

import base64
import binascii
from typing import NamedTuple

import numpy as np
import tiktoken

from models.errors import InvalidInput
from train.tokenizers.tokenizer import EXACT, Tokenizer

GPT_2 = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
GPT_4 = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"""
    r"""| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START, _SHORT = r"[^\r\n\p{L}\p{N}]?", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
GPT_4O = (
    rf"{_START}{_UPPER}*{_LOWER}+{_SHORT}|{_START}{_UPPER}+{_LOWER}*{_SHORT}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Published(NamedTuple):
    """How a published vocabulary cuts text, and the id it gives to the end of a text."""

    pattern: str
    boundary_id: int


PUBLISHED = {
    50256: Published(GPT_2, 50256),  # gpt2, r50k_base
    50280: Published(GPT_2, 50256),  # p50k_base
    100256: Published(GPT_4, 100257),  # cl100k_base
    199998: Published(GPT_4O, 199999),  # o200k_base
    128000: Published(GPT_4, 128001),  # Llama 3
}


@Tokenizer.kinds.register("ranks")
class RanksTokenizer(Tokenizer):
    """`content` is a rank file, `pattern` the regular expression whose matches are merged apart from each other."""

    file_name = "ranks.tiktoken"

    def __init__(self, content: bytes, pattern: str, boundary_id: int):
        ranks = parse_ranks(content)
        pieces = [b""] * (max(boundary_id, *ranks.values()) + 1)
        for piece, rank in ranks.items():
            pieces[rank] = piece
        details = {"pattern": pattern, "boundary_id": boundary_id}
        super().__init__(content, details, pieces, boundary_id, lossless=True, statement=EXACT)
        self._library = tiktoken.Encoding("ranks", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})

    @classmethod
    def from_ranks(cls, content: bytes) -> "RanksTokenizer":
        """The tokenizer of a rank file; one of unknown origin cuts text as GPT-4 does, with the boundary appended.

        Raises InvalidInput where a line is malformed, a token or rank stands twice, or a byte has no rank.
        """
        ranks = parse_ranks(content)
        published = PUBLISHED.get(len(ranks), Published(GPT_4, max(ranks.values()) + 1))
        if published.boundary_id in ranks.values():
            published = Published(published.pattern, max(ranks.values()) + 1)
        return cls(content, *published)

    def encode(self, text: str) -> np.ndarray:
        return np.array(self._library.encode_ordinary(text), np.int32)


def parse_ranks(content: bytes) -> dict[bytes, int]:
    """Token to rank. Raises InvalidInput where the file is none, or cannot encode every text."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            piece, value = base64.b64decode(token, validate=True), int(rank)
        except (ValueError, binascii.Error):
            raise InvalidInput(f"the content is no tiktoken rank file: line {number} is not `base64 rank`") from None
        if piece in ranks or not piece or value < 0:
            raise InvalidInput(f"the content is no tiktoken rank file: line {number} repeats a token or lacks one")
        ranks[piece] = value
    if len(set(ranks.values())) < len(ranks):
        raise InvalidInput("the content is no tiktoken rank file: two tokens have the same rank")
    missing = [value for value in range(256) if bytes([value]) not in ranks]
    if missing:
        raise InvalidInput(f"the content is no complete tiktoken rank file: byte {missing[0]} has no rank")
    return ranks

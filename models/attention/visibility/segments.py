"""Spans by place in the document: chunks that do not see each other, and a prefix that sees itself both ways."""

from dataclasses import dataclass

import numpy as np

from models.attention.visibility.span import Array, Bounds, Visibility, require_tokens


@Visibility.registry.register("chunked")
@dataclass(frozen=True)
class Chunked(Visibility):
    """The earlier tokens of the query's own chunk: n ≤ m and ⌊n/c⌋ = ⌊m/c⌋, c = chunk.

    Llama 4, whose layers with rotary positions attend within chunks of 8192. Chunks count from the beginning of the
    document: packing does not move them. The first token of a chunk sees itself alone, at any length; distances stay
    below the chunk. All tiles outside the chunks of their queries are skipped.
    """

    chunk: int = 8192

    def __post_init__(self):
        require_tokens("chunk", self.chunk)

    def sees(self, query_position: Array, key_position: Array) -> Array:
        own_chunk = query_position // self.chunk == key_position // self.chunk
        return own_chunk & (key_position <= query_position)

    def sees_some(self, query: Bounds, key: Bounds) -> Array:
        not_after = key.low // self.chunk <= query.high // self.chunk
        not_before = query.low // self.chunk <= key.high // self.chunk
        return not_after & not_before & (key.low <= query.high)

    def remembers(self) -> tuple[int, int]:
        return 0, self.chunk

    def keys_seen(self, position: np.ndarray, length: int) -> np.ndarray:
        return position % self.chunk + 1


@Visibility.registry.register("prefix")
@dataclass(frozen=True)
class Prefix(Visibility):
    """Both ways within the first `length` tokens of a document, causal after: n ≤ m, or n < length.

    Raffel et al. 2020 (T5), section 3.2.1, the prefix language model; Dong et al. 2019 (UniLM). The one span that sees
    ahead: tokens of the prefix see those they would be asked to predict, so runs, which score every token, refuse it; a
    loop of one's own may score what follows. Positions whose formula is of earlier keys alone are refused (ALiBi, xPos,
    CoPE, forgetting). A cache gives the same as all at once only if the whole prefix enters it together. Beyond the
    prefix nothing is skipped but the future.
    """

    length: int = 64

    def __post_init__(self):
        require_tokens("length", self.length)

    def sees(self, query_position: Array, key_position: Array) -> Array:
        return (key_position <= query_position) | (key_position < self.length)

    def sees_some(self, query: Bounds, key: Bounds) -> Array:
        return (key.low <= query.high) | (key.low < self.length)

    def is_causal(self) -> bool:
        return False

    def keys_seen(self, position: np.ndarray, length: int) -> np.ndarray:
        return np.maximum(position + 1, min(length, self.length))

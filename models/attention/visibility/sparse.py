"""Spans with a few columns that stay visible at any distance: strided, block-sparse, and global tokens."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from models.attention.visibility.span import Array, Bounds, Visibility, require_tokens
from models.errors import require


@Visibility.registry.register("strided")
@dataclass(frozen=True)
class Strided(Visibility):
    """The latest `stride` tokens and every `stride`-th before: 0 ≤ m - n < l, or m - n a multiple of l = stride.

    Child et al. 2019 (Sparse Transformers), "Two-dimensional factorized attention": the strided pattern, its two heads
    merged into one. With l near √L, every earlier token is reached in two steps through about √L keys each.

    A tile is skipped where no distance in it is below the stride or a multiple of it: with tiles of 128 and a stride
    that they divide, all but one in stride/128 of those beyond the window (24% of full causal's are left at a stride
    of 1024 and 16,384 tokens), and none at a stride of 128, where every tile holds visible pairs.
    """

    stride: int = 128

    def __post_init__(self):
        require_tokens("stride", self.stride)

    def sees(self, query_position: Array, key_position: Array) -> Array:
        distance = query_position - key_position
        in_step = query_position % self.stride == key_position % self.stride
        return (distance >= 0) & ((distance < self.stride) | in_step)

    def sees_some(self, query: Bounds, key: Bounds) -> Array:
        nearest, farthest = query.low - key.high, query.high - key.low
        in_step = farthest // self.stride * self.stride >= nearest
        return (farthest >= 0) & ((nearest < self.stride) | in_step)

    def keys_seen(self, position: np.ndarray, length: int) -> np.ndarray:
        return np.minimum(position + 1, self.stride) + position // self.stride


@Visibility.registry.register("block_sparse")
@dataclass(frozen=True)
class BlockSparse(Visibility):
    """The query's own block up to itself, and the last `columns` of every earlier block of `block` tokens.

    n ≤ m and ⌊n/l⌋ = ⌊m/l⌋, or n < m and n mod l ≥ l - c, with l = block and c = columns. Child et al. 2019 (Sparse
    Transformers), "Two-dimensional factorized attention": the fixed pattern, its two heads merged into one; c of 8 to
    32 worked well there for l of 128 or 256. The last tokens of a block are what later ones can read it by.

    A tile outside the own block is skipped where it holds no such column: with tiles of 128, all but one in block/128
    (19% of full causal's are left at a block of 1024 and 16,384 tokens), and none at a block of 128, where every tile
    holds visible columns.
    """

    block: int = 128
    columns: int = 32

    def __post_init__(self):
        require_tokens("block", self.block)
        require(1 <= self.columns <= self.block, "columns", self.columns, f"from 1 to block = {self.block}")

    def sees(self, query_position: Array, key_position: Array) -> Array:
        own_block = query_position // self.block == key_position // self.block
        in_column = key_position % self.block >= self.block - self.columns
        return (key_position <= query_position) & (own_block | in_column)

    def sees_some(self, query: Bounds, key: Bounds) -> Array:
        first_block, last_block = key.low // self.block, key.high // self.block
        own_block = (query.low // self.block <= last_block) & (first_block <= query.high // self.block)
        # The first key of a column, from the lowest key on.
        column = jnp.maximum(key.low, first_block * self.block + self.block - self.columns)
        in_column = column <= jnp.minimum(key.high, query.high)
        return (key.low <= query.high) & (own_block | in_column)

    def keys_seen(self, position: np.ndarray, length: int) -> np.ndarray:
        return position % self.block + 1 + position // self.block * self.columns


@Visibility.registry.register("global_tokens")
@dataclass(frozen=True)
class GlobalTokens(Visibility):
    """The first `count` tokens of the document, and the query's own: n = m, or n ≤ m and n < count.

    Beltagy et al. 2020 (Longformer), section 3.1, global attention on chosen tokens, made causal: the first tokens are
    seen by all, and see all that is earlier. To be joined by `or` with a span that sees the neighbourhood. All tiles
    are skipped but those of the first tokens and of the diagonal.
    """

    count: int = 16

    def __post_init__(self):
        require_tokens("count", self.count)

    def sees(self, query_position: Array, key_position: Array) -> Array:
        return (key_position == query_position) | ((key_position <= query_position) & (key_position < self.count))

    def sees_some(self, query: Bounds, key: Bounds) -> Array:
        return (key.low <= query.high) & ((key.low < self.count) | (query.low <= key.high))

    def remembers(self) -> tuple[int, int]:
        return self.count, 1

    def keys_seen(self, position: np.ndarray, length: int) -> np.ndarray:
        return np.minimum(position, self.count) + 1

"""Index transforms of single positions."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from models.errors import require
from models.positions.index.index import Array, Index


@Index.registry.register("interpolated")
@dataclass(frozen=True)
class Interpolated(Index):
    """`p = t / factor`: position interpolation under any scheme that takes fractions. Under rotary positions it is the
    scaling "linear". Source: Chen et al. (2023), "Extending Context Window of Large Language Models via Position
    Interpolation", section 2.3.
    """

    whole: ClassVar[bool] = False

    factor: float = 1.0

    def __post_init__(self):
        require(math.isfinite(self.factor) and self.factor >= 1, "factor", self.factor, "a finite number from 1 on")

    def place(self, position_BxL: Array) -> Array:
        return position_BxL.astype(jnp.float32) / self.factor


@Index.registry.register("shifted")
@dataclass(frozen=True)
class Shifted(Index):
    """`p = t + u`: one u from 0 … maximum for each row of a batch, drawn in training alone (SHAPE).

    It makes a scheme of absolute positions learn to heed distances, and shows it positions beyond the training length.
    Evaluation and decoding have u = 0. A learned table must hold the length trained at and `maximum` more.
    Source: Kiyono et al. (2021), "SHAPE: Shifted Absolute Position Embedding for Transformers", section 3.
    """

    draws: ClassVar[bool] = True

    maximum: int = 128

    def __post_init__(self):
        require(self.maximum >= 0, "maximum", self.maximum, "at least 0 tokens")

    def draw(self, key: Array, position_BxL: Array, rows: int, length: int, training: bool) -> Array:
        if not training:
            return position_BxL
        return position_BxL + jax.random.randint(key, (rows, 1), 0, self.maximum + 1)

    def reach(self, length: int, training: bool) -> int:
        return length + self.maximum * training


@Index.registry.register("randomized")
@dataclass(frozen=True)
class Randomized(Index):
    """The tokens of a row of T get T different positions of 0 … maximum - 1, in increasing order, drawn anew for each
    batch in training. So every position up to `maximum` is trained, which must cover the longest text evaluated.

    Evaluation draws once, from `seed`, T being the window's length, or the slots of a cache: decoding equals a window
    as long as the cache. Source: Ruoss et al. (2023), "Randomized Positional Encodings Boost Length Generalization of
    Transformers", section 3 (their maximum is 2048).
    """

    draws: ClassVar[bool] = True

    maximum: int = 2048
    seed: int = 0

    def __post_init__(self):
        require(self.maximum >= 1, "maximum", self.maximum, "at least 1 token")
        require(0 <= self.seed < 2**32, "seed", self.seed, "at least 0 and below 4294967296")

    def draw(self, key: Array, position_BxL: Array, rows: int, length: int, training: bool) -> Array:
        """Raises InvalidInput where the row is longer than `maximum`."""
        require(length <= self.maximum, "position.index.maximum", self.maximum, f"at least the length, {length}")
        key = key if training else jax.random.key(self.seed)
        table_T = jnp.sort(jax.random.choice(key, self.maximum, (length,), replace=False))
        return table_T.astype(jnp.int32)[position_BxL]

    def maximum_length(self) -> int:
        return self.maximum

    def reach(self, length: int, training: bool) -> int:
        return self.maximum

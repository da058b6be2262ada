"""Spans by distance: everything earlier, the latest tokens, those and the first ones, the latest ones with gaps."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from models.attention.visibility.span import MOST_TOKENS, Array, Bounds, Visibility, require_tokens
from models.errors import require


@Visibility.registry.register("full")
@dataclass(frozen=True)
class Full(Visibility):
    """Every earlier token and the query's own: n ≤ m for query position m and key position n."""

    def sees(self, query_position: Array, key_position: Array) -> Array:
        return key_position <= query_position

    def sees_some(self, query: Bounds, key: Bounds) -> Array:
        return key.low <= query.high

    def keys_seen(self, position: np.ndarray, length: int) -> np.ndarray:
        return position + 1


@Visibility.registry.register("sliding")
@dataclass(frozen=True)
class Sliding(Visibility):
    """The latest `window` tokens, the query's own among them: 0 ≤ m - n < window.

    Beltagy et al. 2020 (Longformer), section 3.1, its causal half; Mistral 7B. Tiles older than the window are skipped:
    work grows with the length alone. Beyond the training length nothing changes for a layer, whose distances stay below
    the window; what a stack of layers reaches is layers × (window - 1) tokens back.
    """

    window: int = 256

    def __post_init__(self):
        require_tokens("window", self.window)

    def sees(self, query_position: Array, key_position: Array) -> Array:
        distance = query_position - key_position
        return (distance >= 0) & (distance < self.window)

    def sees_some(self, query: Bounds, key: Bounds) -> Array:
        return (key.low <= query.high) & (query.low - key.high < self.window)

    def remembers(self) -> tuple[int, int]:
        return 0, self.window

    def keys_seen(self, position: np.ndarray, length: int) -> np.ndarray:
        return np.minimum(position + 1, self.window)


@Visibility.registry.register("sinks")
@dataclass(frozen=True)
class Sinks(Visibility):
    """The latest `window` tokens and the first `sinks` of the document: 0 ≤ m - n < window, or n < sinks and n ≤ m.

    Xiao et al. 2024 (StreamingLLM), section 3.2, whose `sinks` are 4; the Λ-shaped mask of Han et al. 2024
    (LM-Infinite), section 4. Both also change the positions of what is seen (counted within the cache, or distances
    capped at the training length): that is up to the positional scheme. Tiles older than the window are skipped but for
    those that hold the first tokens.
    """

    window: int = 256
    sinks: int = 4

    def __post_init__(self):
        require_tokens("window", self.window)
        require_tokens("sinks", self.sinks)

    def sees(self, query_position: Array, key_position: Array) -> Array:
        distance = query_position - key_position
        return (distance >= 0) & ((distance < self.window) | (key_position < self.sinks))

    def sees_some(self, query: Bounds, key: Bounds) -> Array:
        return (key.low <= query.high) & ((query.low - key.high < self.window) | (key.low < self.sinks))

    def remembers(self) -> tuple[int, int]:
        return self.sinks, self.window

    def keys_seen(self, position: np.ndarray, length: int) -> np.ndarray:
        return np.minimum(position + 1, self.window + self.sinks)


@Visibility.registry.register("dilated")
@dataclass(frozen=True)
class Dilated(Visibility):
    """`window` tokens, the query's own and every `dilation`-th before it: m - n in {0, d, 2d, … (window - 1)·d}.

    Beltagy et al. 2020 (Longformer), section 3.1, the causal half of its dilated window; a dilation of 1 is `sliding`.
    Tiles beyond (window - 1)·d are skipped. Those within hold visible keys wherever the gaps are shorter than two
    tiles, and then cost as much as those of a sliding window of the same reach.
    """

    window: int = 256
    dilation: int = 2

    def __post_init__(self):
        require_tokens("window", self.window)
        require_tokens("dilation", self.dilation)
        reach = self.window * self.dilation
        require(reach <= MOST_TOKENS, "window · dilation", reach, f"at most {MOST_TOKENS}")

    @property
    def farthest(self) -> int:
        """The largest distance that is seen."""
        return (self.window - 1) * self.dilation

    def sees(self, query_position: Array, key_position: Array) -> Array:
        distance = query_position - key_position
        in_step = query_position % self.dilation == key_position % self.dilation
        return in_step & (distance >= 0) & (distance <= self.farthest)

    def sees_some(self, query: Bounds, key: Bounds) -> Array:
        nearest = jnp.maximum(query.low - key.high, 0)
        last_step = jnp.minimum(query.high - key.low, self.farthest) // self.dilation * self.dilation
        return last_step >= nearest

    def remembers(self) -> tuple[int, int]:
        return 0, self.farthest + 1

    def keys_seen(self, position: np.ndarray, length: int) -> np.ndarray:
        return np.minimum(position // self.dilation + 1, self.window)

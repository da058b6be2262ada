"""Index transforms of distances: near keys count as being where they are, far ones nearer than they are.

Each keeps every distance within what training showed, and is meant for checkpoints trained without it: none needs
training. With m the query's position, n the key's, Δ = m - n.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from models.errors import require
from models.positions.index.index import Array, Index, Zone
from models.positions.original_length import filled_length, require_original_length


@dataclass(frozen=True)
class Zoned(Index):
    """An index transform of distances."""

    zoned: ClassVar[bool] = True


def _same(position: Array) -> Array:
    return position


def _nearer_than(window: int):
    return lambda m, n: m - n < window


@Index.registry.register("clipped")
@dataclass(frozen=True)
class Clipped(Zoned):
    """Distance `min(Δ, window)`.

    Source: Su (2023), "ReRoPE", for rotary positions; the cap on distances of LM-Infinite (Han et al. 2023, section 4),
    whose Λ mask is the span "sinks".
    """

    window: int = 128

    def __post_init__(self):
        require(self.window >= 1, "window", self.window, "at least 1 token")

    def zones(self) -> tuple[Zone, ...]:
        near = Zone(_nearer_than(self.window), _same, _same)
        far = Zone(None, lambda m: jnp.full_like(m, self.window), jnp.zeros_like)
        return near, far


@Index.registry.register("leaky_clipped")
@dataclass(frozen=True)
class LeakyClipped(Zoned):
    """Distance Δ below `window`, and `window + (Δ - window) / step` from there on.

    Source: Su (2023), "ReRoPE", its leaky form.
    """

    whole: ClassVar[bool] = False

    window: int = 128
    step: float = 16.0

    def __post_init__(self):
        require(self.window >= 1, "window", self.window, "at least 1 token")
        require(math.isfinite(self.step) and self.step >= 1, "step", self.step, "a finite number from 1 on")

    def zones(self) -> tuple[Zone, ...]:
        def squeezed(position: Array) -> Array:
            return position.astype(jnp.float32) / self.step

        near = Zone(_nearer_than(self.window), *(lambda p: p.astype(jnp.float32),) * 2)
        far = Zone(None, lambda m: squeezed(m) + (self.window - self.window / self.step), squeezed)
        return near, far


@Index.registry.register("grouped")
@dataclass(frozen=True)
class Grouped(Zoned):
    """Distance Δ below `window`, and `⌊m/group⌋ - ⌊n/group⌋ + window - ⌊window/group⌋` from there on.

    Source: Jin et al. (2024), "LLM Maybe LongLM: Self-Extend LLM Context Window Without Tuning", section 3.
    """

    window: int = 64
    group: int = 8

    def __post_init__(self):
        require(self.window >= 1, "window", self.window, "at least 1 token")
        require(self.group >= 1, "group", self.group, "at least 1 token")

    def zones(self) -> tuple[Zone, ...]:
        near = Zone(_nearer_than(self.window), _same, _same)
        joint = self.window - self.window // self.group
        return near, Zone(None, lambda m: m // self.group + joint, lambda n: n // self.group)


@Index.registry.register("dual_chunk")
@dataclass(frozen=True)
class DualChunk(Zoned):
    """Text is cut into chunks of s = original_length - local tokens; keys stand at `n mod s`. A query stands at
    `m mod s` for its own chunk, at `min(m mod s + s, original_length - 1)` for the chunk before, and at
    `original_length - 1` for those further back. The `local` keys nearest to a query thus keep their distance across a
    boundary.

    original_length: tokens; None is the length trained at. local: tokens; None is a quarter of that.
    Source: An et al. (2024), "Training-Free Long-Context Scaling of Large Language Models", section 3; the authors'
    code has original_length in the place of original_length - 1, one more than training showed.
    """

    one_sided: ClassVar[bool] = True

    original_length: int | None = None
    local: int | None = None

    def __post_init__(self):
        require_original_length(self.original_length, least=2)
        if self.local is not None:
            limit = math.inf if self.original_length is None else self.original_length
            require(1 <= self.local < limit, "local", self.local, f"from 1 to below original_length ({limit})")

    def zones(self) -> tuple[Zone, ...]:
        """Raises InvalidInput while `original_length` is None."""
        original = filled_length("position.index.original_length", self.original_length)
        limit = original - 1
        local = self.local if self.local is not None else max(1, original // 4)
        chunk = original - local

        def within(position: Array) -> Array:
            return position % chunk

        own = Zone(lambda m, n: m // chunk == n // chunk, within, within)
        before = Zone(
            lambda m, n: m // chunk == n // chunk + 1, lambda m: jnp.minimum(m % chunk + chunk, limit), within
        )
        return own, before, Zone(None, lambda m: jnp.full_like(m, limit), within)


@Index.registry.register("reindexed")
@dataclass(frozen=True)
class Reindexed(Zoned):
    """Places in a cache of `sinks` first and `window` latest tokens in the place of those in the text: a first token's
    distance is `min(m, sinks + window - 1) - n`, all others' is Δ. For the span "sinks" with the same numbers.

    Source: Xiao et al. (2023), "Efficient Streaming Language Models with Attention Sinks", section 3.2.
    """

    window: int = 128
    sinks: int = 4

    def __post_init__(self):
        require(self.window >= 1, "window", self.window, "at least 1 token")
        require(self.sinks >= 0, "sinks", self.sinks, "at least 0 tokens")

    def zones(self) -> tuple[Zone, ...]:
        last = self.sinks + self.window - 1
        first = Zone(lambda m, n: (n < self.sinks) & (m > last), lambda m: jnp.minimum(m, last), _same)
        return first, Zone(None, _same, _same)

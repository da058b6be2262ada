"""Which keys a query sees: a test per pair, and a conservative test per tile that lets attention skip work.

Causality, document boundaries and padding hold for every alternative; an alternative narrows the view further.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from models.errors import require
from models.positions.scheme import Tokens
from models.registry import Registry

Array = jax.Array


@dataclass(frozen=True)
class Visibility:
    """Base of the family; a field `span` in a configuration names an alternative."""

    registry: ClassVar[Registry] = Registry("span.name")
    name: ClassVar[str]

    def sees(self, distance: Array) -> Array | None:
        """Whether a key `distance` tokens back is seen, bool of the same shape; None where every distance is."""
        return None

    def sees_some(self, nearest: Array, farthest: Array) -> Array:
        """Whether any distance in nearest … farthest could be seen. May say yes too often, never no wrongly."""
        return farthest >= 0


@Visibility.registry.register("full")
@dataclass(frozen=True)
class Full(Visibility):
    """Every earlier token."""


@Visibility.registry.register("sliding")
@dataclass(frozen=True)
class Sliding(Visibility):
    """The last `window` tokens, the query's own among them (Beltagy et al. 2020; Mistral 7B)."""

    window: int = 256

    def __post_init__(self):
        require(self.window >= 1, "window", self.window, "at least 1")

    def sees(self, distance: Array) -> Array:
        return distance < self.window

    def sees_some(self, nearest: Array, farthest: Array) -> Array:
        return (farthest >= 0) & (nearest < self.window)


def visible(span: Visibility, query: Tokens, key: Tokens) -> Array:
    """Whether each query sees each key, bool [B or 1, L, S]: causal, within the document, not padding, in the span."""
    distance = query.position[:, :, None] - key.position[:, None, :]
    same_document = (query.document[:, :, None] == key.document[:, None, :]) & (key.document[:, None, :] >= 0)
    seen = (distance >= 0) & same_document
    narrowed = span.sees(distance)
    return seen if narrowed is None else seen & narrowed


def live_tiles(span: Visibility, query: Tokens, key: Tokens, query_tile: int, key_tile: int) -> Array:
    """Which tiles may hold a visible pair, bool [L/query_tile, S/key_tile]. Lengths must divide by their tiles."""
    q_low, q_high, q_first, q_last = _bounds(query, query_tile)
    k_low, k_high, k_first, k_last = _bounds(key, key_tile)
    nearest = q_low[:, :, None] - k_high[:, None, :]
    farthest = q_high[:, :, None] - k_low[:, None, :]
    documents_meet = (q_first[:, :, None] <= k_last[:, None, :]) & (k_first[:, None, :] <= q_last[:, :, None])
    return jnp.any(span.sees_some(nearest, farthest) & documents_meet, axis=0)


def _bounds(tokens: Tokens, tile: int) -> tuple[Array, Array, Array, Array]:
    """Smallest and largest position and document of the real tokens of each tile, each [B or 1, tiles]."""
    position = tokens.position.reshape(tokens.position.shape[0], -1, tile)
    document = tokens.document.reshape(tokens.document.shape[0], -1, tile)
    real = document >= 0
    position, real, document = jnp.broadcast_arrays(position, real, document)
    # A quarter of the int32 range: differences of two such bounds do not overflow.
    far = jnp.iinfo(jnp.int32).max // 4

    def low(x):
        return jnp.where(real, x, far).min(axis=-1)

    def high(x):
        return jnp.where(real, x, -far).max(axis=-1)

    return low(position), high(position), low(document), high(document)

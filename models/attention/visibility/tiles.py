"""What attention asks of a span: the mask of a tile, and the list of tiles that are worth a look.

Document boundaries and padding are added here, the same for every span.
"""

import jax
import jax.numpy as jnp

from models.attention.visibility.span import Bounds, Visibility
from models.positions.scheme import Tokens

Array = jax.Array


def visible(span: Visibility, query: Tokens, key: Tokens) -> Array:
    """Whether each query sees each key, bool [B or 1, L, S]: within the document, not padding, in the span."""
    key_document = key.document[:, None, :]
    same_document = (query.document[:, :, None] == key_document) & (key_document >= 0)
    return same_document & span.sees(query.position[:, :, None], key.position[:, None, :])


def live_tiles(span: Visibility, query: Tokens, key: Tokens, query_tile: int, key_tile: int) -> Array:
    """Which tiles may hold a visible pair, bool [L/query_tile, S/key_tile]. Lengths must divide by their tiles."""
    query_position, query_document = (_facing_keys(bounds) for bounds in _bounds(query, query_tile))
    key_position, key_document = (_facing_queries(bounds) for bounds in _bounds(key, key_tile))
    # False where either tile is padding alone: its lowest document is then above every other's highest.
    documents_meet = (query_document.low <= key_document.high) & (key_document.low <= query_document.high)
    return jnp.any(documents_meet & span.sees_some(query_position, key_position), axis=0)


def _facing_keys(bounds_BxI: Bounds) -> Bounds:
    return Bounds(*(bound[:, :, None] for bound in bounds_BxI))


def _facing_queries(bounds_BxJ: Bounds) -> Bounds:
    return Bounds(*(bound[:, None, :] for bound in bounds_BxJ))


def _bounds(tokens: Tokens, tile: int) -> tuple[Bounds, Bounds]:
    """Of the positions and of the documents of the real tokens of each tile, [B or 1, tiles]."""
    position = tokens.position.reshape(tokens.position.shape[0], -1, tile)
    document = tokens.document.reshape(tokens.document.shape[0], -1, tile)
    real = document >= 0
    position, real, document = jnp.broadcast_arrays(position, real, document)
    # A quarter of the int32 range: differences of two such bounds do not overflow.
    far = jnp.iinfo(jnp.int32).max // 4

    def bounds(x: Array) -> Bounds:
        return Bounds(jnp.where(real, x, far).min(axis=-1), jnp.where(real, x, -far).max(axis=-1))

    return bounds(position), bounds(document)

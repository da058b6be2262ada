"""What decoding keeps: rotated keys and values of every layer, and who the tokens in the slots are."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from models.config import DTYPES, ModelConfig
from models.errors import invalid
from models.positions import Tokens

Array = jax.Array


@flax.struct.dataclass
class LayerCache:
    """Keys, as the scheme's `rotate` leaves them, and values: [B, G, S, K] for S slots."""

    key_BxGxSxK: Array
    value_BxGxSxK: Array


@flax.struct.dataclass
class Cache:
    """layers: per place of the layer pattern (scan: with a leading axis of repeats) or per layer (unroll).
    tokens: position and document of each slot, [B, S]; empty slots have document -1. filled: int32, slots in use.
    """

    layers: tuple[LayerCache, ...]
    tokens: Tokens
    filled: Array

    @property
    def capacity(self) -> int:
        return self.tokens.position.shape[1]


def init_cache(config: ModelConfig, batch: int, capacity: int) -> Cache:
    """An empty cache for `capacity` tokens a row."""
    config.require_length("capacity", capacity)
    repeats, rest = divmod(config.layers, len(config.pattern))
    slots = (batch, config.key_heads, capacity, config.head_width)

    def layer(*leading: int) -> LayerCache:
        empty = jnp.zeros((*leading, *slots), DTYPES[config.dtype])
        return LayerCache(empty, empty)

    if config.layer_loop == "unroll":
        layers = [layer() for _ in range(config.layers)]
    else:
        layers = [layer(repeats) for _ in config.pattern] + [layer() for _ in range(rest)]
    position = jnp.zeros((batch, capacity), jnp.int32)
    return Cache(tuple(layers), Tokens(position, jnp.full_like(position, -1)), jnp.zeros((), jnp.int32))


def occupy(cache: Cache, tokens: Tokens) -> Cache:
    """The cache with its next L slots given to `tokens` (their keys and values are written by the layers).

    Raises InvalidInput where L exceeds the whole capacity; that free slots remain is the caller's to see to.
    """
    length = tokens.position.shape[1]
    if length > cache.capacity:
        raise invalid("capacity", cache.capacity, f"at least {length}, the tokens given at once")

    def write(slots: Array, values: Array) -> Array:
        values = jnp.broadcast_to(values, (slots.shape[0], length))
        return jax.lax.dynamic_update_slice_in_dim(slots, values, cache.filled, axis=1)

    position = write(cache.tokens.position, tokens.position)
    document = write(cache.tokens.document, tokens.document)
    return dataclasses.replace(cache, tokens=Tokens(position, document), filled=cache.filled + length)

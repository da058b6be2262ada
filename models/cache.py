"""What decoding keeps: rotated keys, values and features of every layer, and who the tokens in the slots are."""

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
    """Keys, as the scheme's `rotate` leaves them, and values: [B, G, S, K] for S slots.

    features: what the scheme's `features` made of each token, float32 [B, S, ...] by name; empty for most schemes.
    """

    key_BxGxSxK: Array
    value_BxGxSxK: Array
    features: dict[str, Array] = flax.struct.field(default_factory=dict)


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

    def layer(index: int, *leading: int) -> LayerCache:
        empty = jnp.zeros((*leading, *slots), DTYPES[config.dtype])
        shapes = config.layer_position(index).feature_shapes(config.heads)
        features = {name: jnp.zeros((*leading, batch, capacity, *shape), jnp.float32) for name, shape in shapes.items()}
        return LayerCache(empty, empty, features)

    if config.layer_loop == "unroll":
        layers = [layer(i) for i in range(config.layers)]
    else:
        layers = [layer(i, repeats) for i in range(len(config.pattern))] + [layer(i) for i in range(rest)]
    position = jnp.zeros((batch, capacity), jnp.int32)
    drawn = None if config.drawn_index() is None else position
    tokens = Tokens(position, jnp.full_like(position, -1), drawn=drawn)
    return Cache(tuple(layers), tokens, jnp.zeros((), jnp.int32))


def extend(
    cache: LayerCache, k_BxGxLxK: Array, v_BxGxLxK: Array, features: dict[str, Array], start: Array
) -> LayerCache:
    """The layer's cache with keys, values and features of L tokens in the slots from `start` on."""

    def write(slots: Array, values: Array, axis: int) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(slots, values, start, axis)

    return LayerCache(
        write(cache.key_BxGxSxK, k_BxGxLxK, 2),
        write(cache.value_BxGxSxK, v_BxGxLxK, 2),
        {name: write(cache.features[name], values, 1) for name, values in features.items()},
    )


def last_features(cache: LayerCache, start: Array) -> dict[str, Array]:
    """The features in the slot before `start`, each [B, ...]; zeros where that is the first slot."""

    def last(slots: Array) -> Array:
        newest = jax.lax.dynamic_index_in_dim(slots, jnp.maximum(start - 1, 0), axis=1, keepdims=False)
        return jnp.where(start > 0, newest, 0)

    return {name: last(slots) for name, slots in cache.features.items()}


def occupy(cache: Cache, tokens: Tokens) -> Cache:
    """The cache with its next L slots given to `tokens` (their keys and values are written by the layers).

    Raises InvalidInput where the free slots are too few. Inside a compiled program, which does not know how many are in
    use, it raises only where L exceeds the whole capacity: that free slots remain is the caller's to see to.
    """
    length = tokens.position.shape[1]
    needed = length if isinstance(cache.filled, jax.core.Tracer) else int(cache.filled) + length
    if needed > cache.capacity:
        raise invalid("capacity", cache.capacity, f"at least {needed}: {needed - length} slots are in use")

    def write(slots: Array, values: Array) -> Array:
        values = jnp.broadcast_to(values, (slots.shape[0], length))
        return jax.lax.dynamic_update_slice_in_dim(slots, values, cache.filled, axis=1)

    position = write(cache.tokens.position, tokens.position)
    document = write(cache.tokens.document, tokens.document)
    drawn = None if cache.tokens.drawn is None or tokens.drawn is None else write(cache.tokens.drawn, tokens.drawn)
    return dataclasses.replace(cache, tokens=Tokens(position, document, drawn=drawn), filled=cache.filled + length)

"""What decoding keeps: rotated keys, values and features of every layer, and who the tokens in the slots are.

A layer keeps all tokens, or, where its span can tell which no later query will see, only the others: memory and time
of a window then stay the same however long the text is (Xiao et al. 2023, section 3.2, for windows with first tokens).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import flax.struct
import jax
import jax.numpy as jnp

from models.errors import invalid
from models.positions import Tokens

if TYPE_CHECKING:
    from models.config import ModelConfig

Array = jax.Array


@flax.struct.dataclass
class LayerCache:
    """Keys, as the scheme's `rotate` leaves them, and values: [B, G, S, K] for S slots.

    features: what the scheme's `features` made of each token, float32 [B, S, ...] by name; empty for most schemes.
    """

    key_BxGxSxK: Array
    value_BxGxSxK: Array
    features: dict[str, Array] = flax.struct.field(default_factory=dict)

    def join(
        self, k_BxGxLxK: Array, v_BxGxLxK: Array, new: Tokens, slots: Tokens, start: Array
    ) -> tuple[LayerCache, Array, Array, Tokens]:
        """The cache with L more tokens in the slots from `start` on; and the keys, values and tokens they may see."""

        def write(slots: Array, values: Array, axis: int) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(slots, values, start, axis)

        k, v = write(self.key_BxGxSxK, k_BxGxLxK, 2), write(self.value_BxGxSxK, v_BxGxLxK, 2)
        features = {name: write(self.features[name], values, 1) for name, values in new.features.items()}
        return LayerCache(k, v, features), k, v, dataclasses.replace(slots, features=features)

    def last_features(self, start: Array) -> dict[str, Array]:
        """The features in the slot before `start`, each [B, ...]; zeros where that is the first slot."""

        def last(slots: Array) -> Array:
            newest = jax.lax.dynamic_index_in_dim(slots, jnp.maximum(start - 1, 0), axis=1, keepdims=False)
            return jnp.where(start > 0, newest, 0)

        return {name: last(slots) for name, slots in self.features.items()}


@flax.struct.dataclass
class RollingCache:
    """A layer's cache of the first and the latest tokens of a document: `S - latest` slots for first ones, then a ring.

    Arrays as in LayerCache. tokens: who is in the slots of this layer.
    """

    key_BxGxSxK: Array
    value_BxGxSxK: Array
    features: dict[str, Array]
    tokens: Tokens
    latest: int = flax.struct.field(pytree_node=False)

    def join(
        self, k_BxGxLxK: Array, v_BxGxLxK: Array, new: Tokens, slots: Tokens, start: Array
    ) -> tuple[RollingCache, Array, Array, Tokens]:
        """The cache with those of L more tokens that are still remembered after them, each in its slot; and the keys,
        values and tokens that the L may see: one sees the slots, several see what was in these before, and each other.
        """
        batch, _, length, _ = k_BxGxLxK.shape
        first = self.key_BxGxSxK.shape[2] - self.latest
        position_BxL, document_BxL = (jnp.broadcast_to(x, (batch, length)) for x in (new.position, new.document))
        real_BxL = document_BxL >= 0
        newest_Bx1 = jnp.where(real_BxL, position_BxL, -1).max(axis=1, keepdims=True)
        ring_BxL = first + (position_BxL - first) % self.latest
        kept_BxL = real_BxL & ((position_BxL < first) | (position_BxL > newest_Bx1 - self.latest))
        # One slot too far: such a write is dropped.
        slot_BxL = jnp.where(kept_BxL, jnp.where(position_BxL < first, position_BxL, ring_BxL), first + self.latest)
        row_Bx1 = jnp.arange(batch)[:, None]

        def write(slots: Array, values: Array) -> Array:
            return slots.at[row_Bx1, slot_BxL].set(jnp.broadcast_to(values, (batch, *values.shape[1:])), mode="drop")

        def by_token(x_BxGxSxK: Array) -> Array:
            return jnp.swapaxes(x_BxGxSxK, 1, 2)

        here, there = self.tokens, dataclasses.replace(new, features={})
        tokens = Tokens(
            write(here.position, there.position),
            write(here.document, there.document),
            drawn=None if here.drawn is None or there.drawn is None else write(here.drawn, there.drawn),
        )
        k, v = (
            by_token(write(by_token(slots), by_token(values)))
            for slots, values in ((self.key_BxGxSxK, k_BxGxLxK), (self.value_BxGxSxK, v_BxGxLxK))
        )
        features = {name: write(self.features[name], values) for name, values in new.features.items()}
        joined = RollingCache(k, v, features, tokens, self.latest)
        if length == 1:
            return joined, k, v, dataclasses.replace(tokens, features=features)

        def together(slots: Array, values: Array, axis: int = 1) -> Array:
            return jnp.concatenate([slots, jnp.broadcast_to(values, (batch, *values.shape[1:]))], axis)

        seen = Tokens(
            together(here.position, new.position),
            together(here.document, new.document),
            {name: together(self.features[name], values) for name, values in new.features.items()},
            None if here.drawn is None or new.drawn is None else together(here.drawn, new.drawn),
        )
        return joined, together(self.key_BxGxSxK, k_BxGxLxK, 2), together(self.value_BxGxSxK, v_BxGxLxK, 2), seen

    def last_features(self, start: Array) -> dict[str, Array]:
        """The features of the latest token in each row, [B, ...]; zeros where there is none."""
        position_BxS = jnp.where(self.tokens.document >= 0, self.tokens.position, -1)
        newest_B = position_BxS.argmax(axis=1)
        any_B = position_BxS.max(axis=1) >= 0

        def last(slots: Array) -> Array:
            found = slots[jnp.arange(slots.shape[0]), newest_B]
            return jnp.where(any_B.reshape(-1, *[1] * (found.ndim - 1)), found, 0)

        return {name: last(slots) for name, slots in self.features.items()}


AnyCache = LayerCache | RollingCache


@flax.struct.dataclass
class Cache:
    """layers: what the mixer of each place of the layer pattern (scan: with a leading axis of repeats) or of each layer
      (unroll) keeps.
    tokens: position and document of each slot, [B, S]; empty slots have document -1. filled: int32, slots in use.
    """

    layers: tuple[Any, ...]
    tokens: Tokens
    filled: Array

    @property
    def capacity(self) -> int:
        return self.tokens.position.shape[1]


def init_cache(config: ModelConfig, batch: int, capacity: int) -> Cache:
    """An empty cache for `capacity` tokens a row, which a layer keeps all of, or only those its span may still see."""
    config.require_length("capacity", capacity)
    repeats, rest = divmod(config.layers, len(config.pattern))

    def layer(index: int, *leading: int) -> Any:
        return config.layer_mixer(index).empty(config, index, leading, batch, capacity)

    if config.layer_loop == "unroll":
        layers = [layer(i) for i in range(config.layers)]
    else:
        layers = [layer(i, repeats) for i in range(len(config.pattern))] + [layer(i) for i in range(rest)]
    return Cache(tuple(layers), _nobody(config, batch, capacity), jnp.zeros((), jnp.int32))


def empty_layer(
    config: ModelConfig,
    index: int,
    leading: tuple[int, ...],
    batch: int,
    capacity: int,
    groups: int,
    key_size: int,
    value_size: int,
) -> AnyCache:
    """An empty cache of layer `index`, for keys and values of these sizes in `groups` heads."""
    scheme, memory = config.layer_position(index), config.layer_span(index).remembers()
    # Sums over newer keys need the slots in the order of positions.
    rolls = memory is not None and sum(memory) < capacity and not scheme.accumulates()
    slots = sum(memory) if rolls and memory is not None else capacity
    key, value = (
        jnp.zeros((*leading, batch, groups, slots, size), config.compute_dtype) for size in (key_size, value_size)
    )
    shapes = scheme.feature_shapes(config.heads)
    features = {name: jnp.zeros((*leading, batch, slots, *shape), jnp.float32) for name, shape in shapes.items()}
    if rolls and memory is not None:
        return RollingCache(key, value, features, _nobody(config, *leading, batch, slots), memory[1])
    return LayerCache(key, value, features)


def _nobody(config: ModelConfig, *shape: int) -> Tokens:
    """The tokens of empty slots."""
    position = jnp.zeros(shape, jnp.int32)
    drawn = position if config.drawn_index() is not None else None
    return Tokens(position, jnp.full_like(position, -1), drawn=drawn)


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

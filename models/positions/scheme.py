"""The positional contract: every place where position can enter a transformer, and nowhere else.

A scheme is a frozen dataclass whose fields are its configuration and whose methods are the hooks below, each an
identity by default. Positions are always explicit arrays, never an `arange` inside a hook, so that packing, caches and
sequence sharding stay correct. Hooks on logits see one tile, never an `L × L` array, so every scheme reaches any length
at linear memory. Learned numbers are declared as specs, live in the parameter tree, and come back as an explicit dict.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from models.registry import Registry

Array = jax.Array


class ParameterSpec(NamedTuple):
    """A learned array: its shape, its initializer `(key, shape, dtype) -> array` and one logical axis name per axis."""

    shape: tuple[int, ...]
    initializer: Callable[..., Array]
    axes: tuple[str | None, ...]


@flax.struct.dataclass
class Tokens:
    """Who the tokens on one side of attention are. A leading axis of 1 means: the same in every row of the batch.

    position: int32 [B or 1, L], place in the document; a query sees no key of a larger position.
    document: int32 [B or 1, L]; tokens see each other only within a document. -1 marks no token at all (padding, an
      empty cache slot): it is seen by nobody.
    features: differentiable per-token quantities by name, each [B, L, ...] (a cumulative forget gate, say).
    contiguous: known while tracing: one document, at positions 0 … L-1 in every row. Lets a fused kernel take over.
    """

    position: Array
    document: Array
    features: dict[str, Array] = flax.struct.field(default_factory=dict)
    contiguous: bool = flax.struct.field(pytree_node=False, default=False)


def contiguous_tokens(length: int) -> Tokens:
    """Tokens of one whole document of `length` tokens, the same in every row."""
    position = jnp.arange(length, dtype=jnp.int32)[None]
    return Tokens(position=position, document=jnp.zeros_like(position), contiguous=True)


class Tile(NamedTuple):
    """What a logit hook may look at: Q queries against T keys. Query heads H are a multiple of key heads G."""

    q_BxHxQxK: Array
    k_BxGxTxK: Array
    query: Tokens
    key: Tokens


def dot_product(tile: Tile) -> Array:
    """Scores `q·k` of a tile, float32 [B, H, Q, T]; groups of H/G query heads share a key head."""
    q, k = tile.q_BxHxQxK, tile.k_BxGxTxK
    batch, heads, queries, size = q.shape
    groups, keys = k.shape[1:3]
    q_BxGxRQxK = q.reshape(batch, groups, heads // groups * queries, size)
    scores = jnp.einsum("bgqk,bgtk->bgqt", q_BxGxRQxK, k, preferred_element_type=jnp.float32)
    return scores.reshape(batch, heads, queries, keys)


def distance(tile: Tile) -> Array:
    """Query position minus key position, int32 [B or 1, Q, T]; never negative where the key is visible."""
    return tile.query.position[:, :, None] - tile.key.position[:, None, :]


@dataclass(frozen=True)
class PositionScheme:
    """A scheme that does nothing anywhere; alternatives override the hooks they need.

    Queries arrive in the hooks already multiplied by 1/√head_size, so `score` and `change_logits` work on final logits.
    """

    registry: ClassVar[Registry] = Registry("position.name")
    name: ClassVar[str]

    def check(self, head_size: int) -> None:
        """Raises InvalidInput where the scheme does not fit heads of this size."""

    def maximum_length(self) -> int | None:
        """The first position this scheme is undefined at (a table's length), or None."""
        return None

    def embedding_parameters(self, width: int) -> dict[str, ParameterSpec]:
        """Learned numbers of `embed`, shared by all layers."""
        return {}

    def layer_parameters(self, heads: int, head_size: int) -> dict[str, ParameterSpec]:
        """Learned numbers of one layer's hooks."""
        return {}

    def index(self, position_BxL: Array) -> Array:
        """The position every hook below sees, from the token's place in its document."""
        return position_BxL

    def embed(self, parameters: dict[str, Array], position_BxL: Array, width: int) -> Array | None:
        """What is added to the embeddings, float32 [B or 1, L, width]; None for nothing."""
        return None

    def rotate(self, x_BxLxHxK: Array, position_BxL: Array) -> Array:
        """Queries and keys, rotated before they meet; a cache keeps keys as this leaves them. Same shape and dtype."""
        return x_BxLxHxK

    def temperature(self, position_BxL: Array) -> Array | None:
        """What each query's scores are multiplied by, float32 [B or 1, L]; None for 1."""
        return None

    def score(self, parameters: dict[str, Array], tile: Tile) -> Array:
        """Scores of a tile, float32 [B, H, Q, T]; overridden where they are no dot products of rotated vectors."""
        return dot_product(tile)

    def change_logits(self, parameters: dict[str, Array], logits_BxHxQxT: Array, tile: Tile) -> Array:
        """The logits of a tile after a bias, float32 [B, H, Q, T]."""
        return logits_BxHxQxT

    def plain_logits(self) -> bool:
        """Whether logits are exactly `q·k` of what `rotate` returns, so that a fused kernel may compute them."""
        kind = type(self)
        return kind.score is PositionScheme.score and kind.change_logits is PositionScheme.change_logits

    def fields(self) -> dict[str, Any]:
        """Name and fields, for messages and tables."""
        return {"name": self.name, **dataclasses.asdict(self)}

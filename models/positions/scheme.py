"""The positional contract: every place where position can enter a transformer, and nowhere else.

A scheme is a frozen dataclass whose fields are its configuration and whose methods are the hooks below, each an
identity by default. Positions are always explicit arrays, never an `arange` inside a hook, so that packing, caches and
sequence sharding stay correct. Hooks on logits see one tile, never an `L × L` array, so every scheme reaches any length
at linear memory. Learned numbers are declared as specs, live in the parameter tree, and come back as an explicit dict.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from models.errors import InvalidInput
from models.positions.index import Identity, Index, zoned_distance
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
      empty cache slot): it is seen by nobody. Keys of one document stand in the order of their positions.
    features: differentiable per-token quantities by name, each float32 [B, L, ...], that a scheme made of the layer's
      input (see PositionScheme.features).
    drawn: int32 [B or 1, L], the positions that an index transform drew for a scheme, where one does; visibility keeps
      to `position`.
    contiguous: known while tracing: one document, at positions 0 … L-1 in every row. Lets a fused kernel take over.
    """

    position: Array
    document: Array
    features: dict[str, Array] = flax.struct.field(default_factory=dict)
    drawn: Array | None = None
    contiguous: bool = flax.struct.field(pytree_node=False, default=False)


def contiguous_tokens(length: int) -> Tokens:
    """Tokens of one whole document of `length` tokens, the same in every row."""
    position = jnp.arange(length, dtype=jnp.int32)[None]
    return Tokens(position=position, document=jnp.zeros_like(position), contiguous=True)


class Tile(NamedTuple):
    """What a logit hook may look at: Q queries against T keys. Query heads H are a multiple of key heads G.

    accumulated_BxHxQxT: for schemes that accumulate, the sum of what `accumulate` gave for every visible key from this
      one to the query's newest, in whichever tile those are; None for all others.
    """

    q_BxHxQxK: Array
    k_BxGxTxK: Array
    query: Tokens
    key: Tokens
    accumulated_BxHxQxT: Array | None = None


TAKES = {
    "none": "no transform at all",
    "positions": "transforms of positions",
    "whole positions": "transforms of positions to whole numbers",
    "distances": "any transform",
    "whole distances": "transforms to whole numbers",
}


def dot_product(tile: Tile) -> Array:
    """Scores `q·k` of a tile, float32 [B, H, Q, T]; groups of H/G query heads share a key head."""
    q, k = tile.q_BxHxQxK, tile.k_BxGxTxK
    batch, heads, queries, size = q.shape
    groups, keys = k.shape[1:3]
    scores = _products(q.reshape(batch, groups, heads // groups * queries, size), k)
    return scores.reshape(batch, heads, queries, keys)


@jax.custom_vjp
def _products(q_BxGxQxK: Array, k_BxGxTxK: Array) -> Array:
    """`q·k`, float32 [B, G, Q, T]."""
    return jnp.einsum("bgqk,bgtk->bgqt", q_BxGxQxK, k_BxGxTxK, preferred_element_type=jnp.float32)


def _products_forward(q, k):
    return _products(q, k), (q, k)


def _products_backward(vectors, d_scores_BxGxQxT):
    # The gradient of keys is made transposed, because the product then takes its large factor as it lies.
    q, k = vectors
    d_scores = d_scores_BxGxQxT.astype(q.dtype)
    d_q = jnp.einsum("bgqt,bgtk->bgqk", d_scores, k, preferred_element_type=jnp.float32)
    d_kT = jnp.einsum("bgqk,bgqt->bgkt", q, d_scores, preferred_element_type=jnp.float32)
    return d_q.astype(q.dtype), jnp.swapaxes(d_kT, 2, 3).astype(k.dtype)


_products.defvjp(_products_forward, _products_backward)


def weigh_values(weights_BxHxQxT: Array, v_BxGxTxK: Array) -> Array:
    """Sums of values weighted per query, float32 [B, H, Q, K]; groups of H/G query heads share a value head."""
    batch, heads, queries, keys = weights_BxHxQxT.shape
    groups, size = v_BxGxTxK.shape[1], v_BxGxTxK.shape[3]
    weights = weights_BxHxQxT.reshape(batch, groups, heads // groups * queries, keys).astype(v_BxGxTxK.dtype)
    summed = jnp.einsum("bgqt,bgtk->bgqk", weights, v_BxGxTxK, preferred_element_type=jnp.float32)
    return summed.reshape(batch, heads, queries, size)


@dataclass(frozen=True)
class PositionScheme:
    """A scheme that does nothing anywhere; alternatives override the hooks they need.

    Queries arrive in the hooks already multiplied by 1/√head_size, so `score` and `change_logits` work on final logits.
    Keys and values do not. Hooks called per tile may not rely on which tiles there are: what depends on keys of other
    tiles goes through `accumulate`, what depends on earlier tokens alone through `features`. Their gradients, backwards
    through tiles, are taken by whoever calls them.

    index: what positions and distances become before the hooks see them.
    takes: which transforms fit the scheme: of "distances" (and so of positions), of "positions", either of these as
      "whole" numbers alone, or "none" where positions say nothing to it.
    one_sided: whether the formula is of earlier keys alone, and means nothing for later ones; spans that see ahead are
      then refused.
    """

    registry: ClassVar[Registry] = Registry("position.name")
    name: ClassVar[str]
    takes: ClassVar[str] = "none"
    one_sided: ClassVar[bool] = False

    index: Index = field(default=Identity(), kw_only=True)

    def check_index(self) -> None:
        """Raises InvalidInput where the index transform does not fit the scheme."""
        fits = isinstance(self.index, Identity) or self.takes != "none"
        fits &= self.index.whole or not self.takes.startswith("whole")
        fits &= not self.index.zoned or self.takes.endswith("distances")
        if not fits:
            what = "changes distances" if self.index.zoned else "changes positions"
            what += "" if self.index.whole else " to fractions"
            raise InvalidInput(
                f"position.index.name = {self.index.name!r} {what}, which position.name = {self.name!r} cannot take: "
                f"it takes {TAKES[self.takes]}"
            )

    def check(self, head_size: int, field: str = "head_size") -> None:
        """Raises InvalidInput where the scheme does not fit heads of this size, which `field` decides."""

    def check_width(self, width: int) -> None:
        """Raises InvalidInput where what `embed` adds does not fit a model of this width."""

    def maximum_length(self) -> int | None:
        """The first position this scheme is undefined at (a table's length), or None."""
        return None

    def embedding_parameters(self, width: int) -> dict[str, ParameterSpec]:
        """Learned numbers of `embed`, shared by all layers."""
        return {}

    def has_table(self) -> bool:
        """Whether `embed` has learned numbers."""
        return type(self).embedding_parameters is not PositionScheme.embedding_parameters

    def layer_parameters(self, heads: int, head_size: int) -> dict[str, ParameterSpec]:
        """Learned numbers of one layer's hooks."""
        return {}

    def feature_parameters(self, width: int, heads: int) -> dict[str, ParameterSpec]:
        """Learned numbers of one layer's `features`, whose input is `width` wide; names differ from the hooks'."""
        return {}

    def feature_shapes(self, heads: int) -> dict[str, tuple[int, ...]]:
        """Name and shape per token of what `features` returns; empty for a scheme without features."""
        return {}

    def features(
        self, parameters: dict[str, Array], x_BxLxD: Array, tokens: Tokens, before: dict[str, Array]
    ) -> dict[str, Array]:
        """Per-token quantities of one layer, each float32 [B, L, ...], from the layer's input to attention.

        Hooks on logits find them in `tile.query.features` and `tile.key.features`; a cache keeps those of the keys.
        tokens: with positions as they are before `index`. before: the features of the slot before the first token, each
          [B, ...]; zeros where there is none.
        """
        return {}

    def place(self, tokens: Tokens) -> Array:
        """The positions that every hook below sees, int32 or float32 [B or 1, L], from where tokens stand."""
        drawn = tokens.drawn if self.index.draws else None
        return self.index.place(tokens.position if drawn is None else drawn)

    def embed(self, parameters: dict[str, Array], position_BxL: Array, width: int) -> Array | None:
        """What is added to the embeddings, float32 [B or 1, L, width]; None for nothing."""
        return None

    def rotate(self, x_BxLxHxK: Array, position_BxL: Array) -> Array:
        """Queries and keys, rotated before they meet; a cache keeps keys as this leaves them. Same shape and dtype."""
        return x_BxLxHxK

    def rotate_features(self, x_BxLxHxK: Array, position_BxL: Array) -> Array:
        """Features of linear attention, rotated as `rotate` does but never resized: what stands above its division but
        not below would multiply its outputs. Asked for only of schemes whose logits are plain."""
        return self.rotate(x_BxLxHxK, position_BxL)

    def distance(self, tile: Tile) -> Array:
        """How far back each key counts as being, [B or 1, Q, T]; hooks on logits ask this and not the positions.

        Negative for later keys, which are visible under spans that see ahead; schemes that know distances from 0 on
        alone take those as 0, unless they are `one_sided`.
        """
        if self.index.zoned:
            return zoned_distance(self.index.zones(), tile.query.position, tile.key.position)
        return tile.query.position[:, :, None] - tile.key.position[:, None, :]

    def score(self, parameters: dict[str, Array], tile: Tile) -> Array:
        """Scores of a tile, float32 [B, H, Q, T]; overridden where they are no dot products of rotated vectors."""
        return dot_product(tile)

    def accumulate(self, parameters: dict[str, Array], logits_BxHxQxT: Array, tile: Tile) -> Array:
        """What each key adds to the sums of itself and all older keys of the query, float32 [B, H, Q, T].

        `logits_BxHxQxT` are the tile's scores. `change_logits` finds the sums in `tile.accumulated_BxHxQxT`. Keys that
        the query does not see add nothing, whatever this returns for them.
        """
        raise NotImplementedError(f"position.name = {self.name!r} accumulates nothing")

    def change_logits(self, parameters: dict[str, Array], logits_BxHxQxT: Array, tile: Tile) -> Array:
        """The logits of a tile after a bias, float32 [B, H, Q, T]."""
        return logits_BxHxQxT

    def weigh(self, parameters: dict[str, Array], weights_BxHxQxT: Array, v_BxGxTxK: Array, tile: Tile) -> Array:
        """What a tile adds to each query's output, float32 [B, H, Q, K]; linear in the weights.

        Of the tile only the tokens' positions and documents are there: no vectors, no features.
        """
        return weigh_values(weights_BxHxQxT, v_BxGxTxK)

    def plain_logits(self) -> bool:
        """Whether the output is exactly softmax(q·k)·v of what `rotate` returns, so that a fused kernel may do it."""
        kind = type(self)
        plain = kind.score is PositionScheme.score and kind.change_logits is PositionScheme.change_logits
        return plain and self.plain_values()

    def plain_values(self) -> bool:
        """Whether `weigh` is the plain weighted sum, whose gradients attention takes by a shorter way."""
        return type(self).weigh is PositionScheme.weigh

    def accumulates(self) -> bool:
        """Whether `change_logits` needs sums over newer keys; key tiles are then visited newest first."""
        return type(self).accumulate is not PositionScheme.accumulate

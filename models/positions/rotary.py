"""Rotary positions (RoPE): queries and keys turned by angles proportional to their positions."""

import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.errors import require, require_choice
from models.positions.scaling import NoScaling, Scaling
from models.positions.scaling.rule import plain_frequencies
from models.positions.scheme import Array, PositionScheme, Tile, Tokens, dot_product

LAYOUTS = ("half_split", "interleaved")

# Numbers in one intermediate of the scores at own lengths, in float32: 1 MiB, which stays in a CPU's cache.
GROUP_SIZE = 2**18

# Queries that are looked at together for whether they share a length.
AT_ONE_LENGTH = 64


def turn(x: Array, cosine: Array, sine: Array, layout: str) -> Array:
    """Each pair of `x` [..., width] turned by the angle of the given `cosine` and `sine` [..., width/2].

    layout: pair i is the numbers (i, i + width/2) under "half_split", (2i, 2i + 1) under "interleaved".
    Computed in float32, returned in the dtype of `x`; leading axes broadcast.
    """
    # A product with the whole vector and one with its partners: the gradient of slices of it would be padded copies.
    turned = x * _as_pairs(cosine, cosine, layout) + _partners(x, layout) * _as_pairs(-sine, sine, layout)
    return turned.astype(x.dtype)


def _as_pairs(first: Array, second: Array, layout: str) -> Array:
    """The vector [..., width] whose pair i is (first_i, second_i)."""
    if layout == "half_split":
        return jnp.concatenate([first, second], axis=-1)
    return jnp.stack([first, second], axis=-1).reshape(*first.shape[:-1], -1)


def _partners(x: Array, layout: str) -> Array:
    """`x` [..., width] with the two numbers of each pair exchanged."""
    if layout == "half_split":
        return jnp.roll(x, x.shape[-1] // 2, axis=-1)
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    return jnp.stack([pairs[..., 1], pairs[..., 0]], axis=-1).reshape(x.shape)


@PositionScheme.registry.register("rope")
@dataclass(frozen=True)
class Rotary(PositionScheme):
    """Turns pair i of queries and keys by `position · θ_i`, `θ_i = base^(-2i/head_size)`, so that scores depend on
    distances alone. Angles are float32 products of integer positions, whatever the dtype of the vectors.

    layout: "half_split" (GPT-NeoX, Llama) or "interleaved" (the paper); they differ by a permutation of columns.
    scaling: the rule that replaces the frequencies. Under one that depends on the length, keys are cached unrotated
      and every query meets them at its own length.
    Source: Su et al. (2021), "RoFormer", section 3.2.
    """

    base: float = 10000.0
    layout: str = "half_split"
    scaling: Scaling = field(default_factory=NoScaling)

    def __post_init__(self):
        require(math.isfinite(self.base) and self.base > 1, "base", self.base, "a finite number above 1")
        require_choice("layout", self.layout, LAYOUTS)

    def check(self, head_size: int) -> None:
        plain_frequencies(self.base, head_size)

    def rotate(self, x_BxLxHxK: Array, position_BxL: Array) -> Array:
        if self.scaling.depends_on_length:
            return x_BxLxHxK
        frequencies = self.scaling.frequencies(self.base, x_BxLxHxK.shape[-1])
        return self._turn_by_position(x_BxLxHxK, position_BxL[:, :, None], frequencies)

    def score(self, parameters: dict[str, Array], tile: Tile) -> Array:
        """Scores of a tile, float32 [B, H, Q, T]; queries that share a length take the plain, cheap way."""
        if not self.scaling.depends_on_length:
            return dot_product(tile)
        queries = tile.query.position.shape[1]
        if queries % AT_ONE_LENGTH or queries == AT_ONE_LENGTH:
            return self._scores_of_some(tile)
        # A few queries at a time, because a whole tile seldom shares one length.
        parts = queries // AT_ONE_LENGTH

        def some(part: Array) -> Array:
            start = part * AT_ONE_LENGTH
            q = jax.lax.dynamic_slice_in_dim(tile.q_BxHxQxK, start, AT_ONE_LENGTH, 2)
            position = jax.lax.dynamic_slice_in_dim(tile.query.position, start, AT_ONE_LENGTH, 1)
            document = jax.lax.dynamic_slice_in_dim(tile.query.document, start, AT_ONE_LENGTH, 1)
            return self._scores_of_some(tile._replace(q_BxHxQxK=q, query=Tokens(position, document)))

        scores_PxBxHxQxT = jax.lax.map(some, jnp.arange(parts))
        return jnp.moveaxis(scores_PxBxHxQxT, 0, 2).reshape(*tile.q_BxHxQxK.shape[:3], -1)

    def _scores_of_some(self, tile: Tile) -> Array:
        length_BxQ = self.scaling.current_length(tile.query.position)
        shared = jnp.all(length_BxQ == length_BxQ[:, :1])
        return jax.lax.cond(shared, self._scores_at_one_length, self._scores_at_own_length, tile)

    def plain_logits(self) -> bool:
        return not self.scaling.depends_on_length

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "scaling": self.scaling.fields()}

    def _turn_by_position(self, x: Array, position: Array, frequencies: np.ndarray | Array) -> Array:
        angle = position[..., None].astype(jnp.float32) * frequencies.astype(np.float32)
        amplitude = self.scaling.amplitude()
        return turn(x, amplitude * jnp.cos(angle), amplitude * jnp.sin(angle), self.layout)

    def _scores_at_one_length(self, tile: Tile) -> Array:
        """Scores where all queries of a row share one length: of queries and keys rotated at its frequencies."""
        length_B = self.scaling.current_length(tile.query.position[:, 0])
        frequency_BxP = self.scaling.frequencies_at(self.base, tile.q_BxHxQxK.shape[-1], length_B)
        q = self._turn_by_position(tile.q_BxHxQxK, tile.query.position[:, None], frequency_BxP[:, None, None])
        k = self._turn_by_position(tile.k_BxGxTxK, tile.key.position[:, None], frequency_BxP[:, None, None])
        return dot_product(tile._replace(q_BxHxQxK=q, k_BxGxTxK=k))

    def _scores_at_own_length(self, tile: Tile) -> Array:
        """`Σ_i Re(q_i k_i* e^{iθ_i(l)·distance})` with the frequencies of each query's own length l.

        Each query turns all keys by their distance from it, which has no form of a product of two rotated matrices. So
        queries go in groups that keep Q × T × K numbers from existing at once, and again so in the backward pass.
        """
        batch, heads, queries, size = tile.q_BxHxQxK.shape
        groups, keys = tile.k_BxGxTxK.shape[1:3]
        # Key heads whose keys stand at the same positions (N of them) meet the same angles: all, where the rows of the
        # batch share their positions (then B is 1 here).
        rows = max(tile.query.position.shape[0], tile.key.position.shape[0])
        same = batch // rows * groups
        q_BxNxRxQxK = tile.q_BxHxQxK.reshape(rows, same, heads // groups, queries, size).astype(jnp.float32)
        k_BxNxTxK = tile.k_BxGxTxK.reshape(rows, same, keys, size).astype(jnp.float32)
        k_NxBxTxK = jnp.moveaxis(k_BxNxTxK, 1, 0)
        position_BxQ = jnp.broadcast_to(tile.query.position, (rows, queries))
        amplitude = self.scaling.amplitude() ** 2

        def one_query(query: tuple[Array, Array]) -> Array:
            q_NxBxRxK, position_B = query
            frequency_BxP = self.scaling.frequencies_at(self.base, size, self.scaling.current_length(position_B))
            offset_BxT = (tile.key.position - position_B[:, None]).astype(jnp.float32)
            angle_BxTxP = offset_BxT[:, :, None] * frequency_BxP[:, None, :]
            cosine_BxTxP, sine_BxTxP = amplitude * jnp.cos(angle_BxTxP), amplitude * jnp.sin(angle_BxTxP)

            def one_key_head(pair: tuple[Array, Array]) -> Array:
                q_BxRxK, k_BxTxK = pair
                return jnp.einsum("brk,btk->brt", q_BxRxK, turn(k_BxTxK, cosine_BxTxP, sine_BxTxP, self.layout))

            # A loop, because XLA would fuse cosines and sines into a product over heads and compute them for each.
            return jax.lax.map(jax.checkpoint(one_key_head), (q_NxBxRxK, k_NxBxTxK))

        at_once = max(1, GROUP_SIZE // (rows * keys * size))
        by_query = jnp.transpose(q_BxNxRxQxK, (3, 1, 0, 2, 4)), position_BxQ.T
        scores_QxNxBxRxT = jax.lax.map(jax.checkpoint(one_query), by_query, batch_size=at_once)
        return jnp.transpose(scores_QxNxBxRxT, (2, 1, 3, 0, 4)).reshape(batch, heads, queries, keys)

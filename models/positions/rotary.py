"""Rotary positions (RoPE): queries and keys turned by angles proportional to their positions."""

import functools
import math
from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from models.errors import InvalidInput, require, require_choice
from models.positions.index import Zone
from models.positions.scaling import NoScaling, Scaling
from models.positions.scaling.rule import require_pairs
from models.positions.scheme import Array, PositionScheme, Tile, Tokens, dot_product

LAYOUTS = ("half_split", "interleaved")
SHARE_RULES = ("partial", "proportional")
ANGLES = ("float32", "bfloat16_positions", "bfloat16_frequencies", "bfloat16")

# Numbers in one intermediate of the scores at own lengths, in float32: 1 MiB, which stays in a CPU's cache.
GROUP_SIZE = 2**18

# Queries that are looked at together for whether they share a length.
AT_ONE_LENGTH = 64


def turn(x: Array, cosine: Array, sine: Array, layout: str) -> Array:
    """Each pair of the first `width` numbers of `x` [..., size], turned by the angle of the given `cosine` and `sine`
    [..., width/2]; the other numbers pass as they are.

    layout: pair i is the numbers (i, i + width/2) under "half_split", (2i, 2i + 1) under "interleaved".
    Computed in float32, returned in the dtype of `x`; leading axes broadcast.
    """
    width = 2 * cosine.shape[-1]
    part, rest = x[..., :width], x[..., width:]
    # A product with the whole vector and one with its partners: the gradient of slices of it would be padded copies.
    turned = part * as_pairs(cosine, cosine, layout) + _partners(part, layout) * as_pairs(-sine, sine, layout)
    turned = turned.astype(x.dtype)
    if width == x.shape[-1]:
        return turned
    return jnp.concatenate([turned, jnp.broadcast_to(rest, (*turned.shape[:-1], rest.shape[-1]))], axis=-1)


def as_pairs(first: Array, second: Array, layout: str) -> Array:
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


def round_to_bfloat16(x: Array) -> Array:
    """Numbers of float32 rounded to those that bfloat16 has; a pair of casts would be optimized away."""
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


@PositionScheme.registry.register("rope")
@dataclass(frozen=True)
class Rotary(PositionScheme):
    """Turns pair i of queries and keys by `position · θ_i`, `θ_i = base^(-2i/width)`, so that scores depend on
    distances alone. Angles are float32 products of integer positions, whatever the dtype of the vectors.

    Beyond the training length the slow pairs meet angles that training never showed them, and plain RoPE fails there.

    layout: "half_split" (GPT-NeoX, Llama) or "interleaved" (the paper); they differ by a permutation of columns.
    scaling: the rule that replaces the frequencies. Under one that depends on the length, keys are cached unrotated
      and every query meets them at its own length. Its attention factor multiplies what is rotated: under "partial",
      the rest of a head keeps its size.
    share: ρ, how much of a head is rotated, under one of two rules. "partial" rotates the first ρ·head_size numbers,
      and they are the width (GPT-NeoX: 0.25). "proportional" has the whole head as its width and keeps the
      ⌊ρ·head_size/2⌋ highest frequencies; the other pairs have frequency 0 (Gemma 4: 0.25).
    angles: "float32". The others reproduce failures on purpose, those of a model that is cast as a whole:
      "bfloat16_positions" and "bfloat16_frequencies" round the one factor to the nearest bfloat16, "bfloat16" both and
      their product. There are 769 bfloat16 numbers among positions 0…4095, and rounded frequencies are up to 5 radians
      off at position 4095.
    Source: Su et al. (2021), "RoFormer", section 3.2; the share from GPT-NeoX (Black et al. 2022, section 2.1) and from
      Barbero et al. (2024), "Round and Round We Go!", section 6 (p-RoPE); bfloat16 from Wang et al. (2024), "When
      Precision Meets Position".
    """

    takes: ClassVar[str] = "distances"

    base: float = 10000.0
    layout: str = "half_split"
    scaling: Scaling = field(default_factory=NoScaling)
    share: float = 1.0
    share_rule: str = "partial"
    angles: str = "float32"

    def __post_init__(self):
        require(math.isfinite(self.base) and self.base > 1, "base", self.base, "a finite number above 1")
        require_choice("layout", self.layout, LAYOUTS)
        require(0 <= self.share <= 1, "share", self.share, "from 0 to 1")
        require_choice("share_rule", self.share_rule, SHARE_RULES)
        require_choice("angles", self.angles, ANGLES)

    def check(self, head_size: int, field: str = "head_size") -> None:
        width = self.width(head_size, field)
        require_pairs(width, field)
        self.scaling.check(width)

    def width(self, head_size: int, field: str = "head_size") -> int:
        """How many numbers of a head stand in pairs. Raises InvalidInput where "partial" would leave half a pair."""
        if self.share == 1 or self.share_rule == "proportional":
            return head_size
        width = int(head_size * self.share)
        allowed = f"such that int(share · {field}), of {head_size} here, is even and at least 2, not {width}"
        require(width >= 2 and width % 2 == 0, "share", self.share, allowed)
        return width

    def frequencies(self, head_size: int, length: int | None = None) -> np.ndarray:
        """Radians per token of each pair, float64 [width/2], from the highest to the lowest and then zeros.

        length: the current length in tokens, which only a scaling that depends on it looks at; None stands for any
        within its original length.
        """
        rule = self.scaling if length is None else self.scaling.at_length(length)
        return rule.frequencies(self.base, self.width(head_size)) * self._kept(head_size)

    def check_index(self) -> None:
        super().check_index()
        if self.index.zoned and self.scaling.depends_on_length:
            raise InvalidInput(
                f"position.index.name = {self.index.name!r} changes distances, which does not go with "
                f"position.scaling.name = {self.scaling.name!r}, whose frequencies change with the length"
            )

    def rotate(self, x_BxLxHxK: Array, position_BxL: Array) -> Array:
        if self._rotates_late():
            return x_BxLxHxK
        return self._turn_by_position(x_BxLxHxK, position_BxL[:, :, None], self.frequencies(x_BxLxHxK.shape[-1]))

    def rotate_features(self, x_BxLxHxK: Array, position_BxL: Array) -> Array:
        angle = self._angle(position_BxL[:, :, None], self.frequencies(x_BxLxHxK.shape[-1]))
        return turn(x_BxLxHxK, jnp.cos(angle), jnp.sin(angle), self.layout)

    def score(self, parameters: dict[str, Array], tile: Tile) -> Array:
        """Scores of a tile, float32 [B, H, Q, T]; queries that share a length take the plain, cheap way."""
        if self.index.zoned:
            return self._scores_by_zone(tile)
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

    def _rotates_late(self) -> bool:
        """Whether keys are kept as they are, and rotated for each query that looks at them."""
        return self.scaling.depends_on_length or self.index.zoned

    def _scores_by_zone(self, tile: Tile) -> Array:
        """Scores where the distance has another form in each zone: queries and keys are rotated once for each."""
        m_BxQ, n_BxT = tile.query.position, tile.key.position
        frequencies = self.frequencies(tile.q_BxHxQxK.shape[-1])

        def scores(zone: Zone) -> Array:
            q = self._turn_by_position(tile.q_BxHxQxK, zone.query(m_BxQ)[:, None], frequencies)
            k = self._turn_by_position(tile.k_BxGxTxK, zone.key(n_BxT)[:, None], frequencies)
            return dot_product(tile._replace(q_BxHxQxK=q, k_BxGxTxK=k))

        def nothing() -> Array:
            return jnp.zeros((*tile.q_BxHxQxK.shape[:3], tile.k_BxGxTxK.shape[2]))

        total = nothing()
        left: Array = jnp.ones((1, 1, 1), bool)  # the pairs that no zone has had
        for zone in self.index.zones():
            here = left if zone.holds is None else left & zone.holds(m_BxQ[:, :, None], n_BxT[:, None, :])
            left = left & ~here
            # Few tiles lie in more than one zone.
            in_zone = jax.lax.cond(here.any(), functools.partial(scores, zone), nothing)
            total += jnp.where(here[:, None], in_zone, 0.0)
        return total

    def _scores_of_some(self, tile: Tile) -> Array:
        length_BxQ = self.scaling.current_length(tile.query.position)
        shared = jnp.all(length_BxQ == length_BxQ[:, :1])
        return jax.lax.cond(shared, self._scores_at_one_length, self._scores_at_own_length, tile)

    def plain_logits(self) -> bool:
        return not self._rotates_late()

    def _kept(self, head_size: int) -> np.ndarray:
        """1 for a pair that is rotated, else 0, float64 [width/2]."""
        pairs = self.width(head_size) // 2
        kept = int(self.share * head_size // 2) if self.share_rule == "proportional" else pairs
        return (np.arange(pairs) < kept).astype(np.float64)

    def _frequencies_at(self, head_size: int, length_B: Array) -> Array:
        """Frequencies at a current length, float32 [B, width/2]."""
        frequency_BxP = self.scaling.frequencies_at(self.base, self.width(head_size), length_B)
        return frequency_BxP * self._kept(head_size).astype(np.float32)

    def _frequencies_of(self, head_size: int, position_BxL: Array, frequency_Bx1xP: Array) -> Array:
        """Frequencies of tokens at these positions, float32 [B, 1 or L, width/2], for a query whose own are given."""
        if not self.scaling.differs_by_token():
            return frequency_Bx1xP
        width = self.width(head_size)
        frequency_BxLxP = self.scaling.frequencies_of(self.base, width, position_BxL, frequency_Bx1xP)
        return frequency_BxLxP * self._kept(head_size).astype(np.float32)

    def _angle(self, position: Array, frequencies: np.ndarray | Array) -> Array:
        """Radians, float32: of positions [...] and frequencies [pairs] or [..., pairs], [..., pairs]."""
        where, frequency = position[..., None].astype(jnp.float32), jnp.asarray(frequencies, jnp.float32)
        if self.angles in ("bfloat16_positions", "bfloat16"):
            where = round_to_bfloat16(where)
        if self.angles in ("bfloat16_frequencies", "bfloat16"):
            frequency = round_to_bfloat16(frequency)
        angle = where * frequency
        return round_to_bfloat16(angle) if self.angles == "bfloat16" else angle

    def _turn_by_position(self, x: Array, position: Array, frequencies: np.ndarray | Array) -> Array:
        angle = self._angle(position, frequencies)
        amplitude = self.scaling.amplitude()
        return turn(x, amplitude * jnp.cos(angle), amplitude * jnp.sin(angle), self.layout)

    def _scores_at_one_length(self, tile: Tile) -> Array:
        """Scores where all queries of a row share one length: of queries and keys rotated at its frequencies."""
        length_B = self.scaling.current_length(tile.query.position[:, 0])
        frequency_Bx1xP = self._frequencies_at(tile.q_BxHxQxK.shape[-1], length_B)[:, None]

        def turned(x_BxHxLxK: Array, position_BxL: Array) -> Array:
            frequency_BxLxP = self._frequencies_of(x_BxHxLxK.shape[-1], position_BxL, frequency_Bx1xP)
            return self._turn_by_position(x_BxHxLxK, position_BxL[:, None], frequency_BxLxP[:, None])

        q = turned(tile.q_BxHxQxK, tile.query.position)
        k = turned(tile.k_BxGxTxK, tile.key.position)
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
            frequency_Bx1xP = self._frequencies_at(size, self.scaling.current_length(position_B))[:, None]
            if self.angles == "float32" and not self.scaling.differs_by_token():
                angle_BxTxP = self._angle(tile.key.position - position_B[:, None], frequency_Bx1xP)
            else:  # rounded positions have another distance
                at_key, at_query = (
                    self._angle(at, self._frequencies_of(size, at, frequency_Bx1xP))
                    for at in (tile.key.position, position_B[:, None])
                )
                angle_BxTxP = at_key - at_query
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

"""The contract of index transforms: what a token's place in its document becomes before a scheme sees it.

Some change each position by itself (interpolated, shifted, randomized), so every scheme that looks at positions can
stand on them. Others change how far a key counts as being (clipped, grouped, chunked): they say so in zones, in each of
which the distance is a number of the query's less a number of the key's. A bias then sees another distance, and rotary
positions rotate queries and keys once a zone. Visibility and temperature go by the token's true position always.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from models.registry import Registry

Array = jax.Array


class Zone(NamedTuple):
    """Pairs of tokens whose distance is `query(m) - key(n)`, m and n the positions of query and key.

    holds: which pairs belong to it, bool of the broadcast positions, if no zone before it has them; None is all the
    rest. query, key: positions of one side to numbers, int32 or float32.
    """

    holds: Callable[[Array, Array], Array] | None
    query: Callable[[Array], Array]
    key: Callable[[Array], Array]


@dataclass(frozen=True)
class Index:
    """Base of the family.

    whole: whether positions and distances stay whole numbers, so that a table can be read at them.
    draws: whether positions come from `draw`. zoned: whether it is distances that change, by `zones`.
    one_sided: whether the zones are of earlier keys alone.
    """

    registry: ClassVar[Registry] = Registry("position.index.name")
    name: ClassVar[str]
    whole: ClassVar[bool] = True
    draws: ClassVar[bool] = False
    zoned: ClassVar[bool] = False
    one_sided: ClassVar[bool] = False

    def place(self, position_BxL: Array) -> Array:
        """The positions that a scheme sees, of true ones or of drawn ones, int32 or float32 of the same shape."""
        return position_BxL

    def draw(self, key: Array, position_BxL: Array, rows: int, length: int, training: bool) -> Array:
        """Drawn positions of tokens in `rows` rows of `length` (the whole window, or a cache's slots), int32 [B or 1,
        L]; the rows' own positions may be one line for all."""
        raise NotImplementedError(f"position.index.name = {self.name!r} draws nothing")

    def zones(self) -> tuple[Zone, ...]:
        """The zones of distances, first match first; () where a distance is just the difference of two places."""
        return ()

    def reach(self, length: int, training: bool) -> int:
        """How many different positions a text of `length` may come to stand at, counted from 0."""
        return length

    def maximum_length(self) -> int | None:
        """The longest text there are positions for, or None without a limit."""
        return None


@Index.registry.register("identity")
@dataclass(frozen=True)
class Identity(Index):
    """Positions as they are."""


def zoned_distance(zones: tuple[Zone, ...], query_BxQ: Array, key_BxT: Array) -> Array:
    """The distance of each pair under its zone, [B or 1, Q, T], in the widest dtype of the zones."""
    m, n = query_BxQ[:, :, None], key_BxT[:, None, :]
    *others, last = zones
    distance = jnp.broadcast_to(last.query(m) - last.key(n), jnp.broadcast_shapes(m.shape, n.shape))
    for zone in reversed(others):
        assert zone.holds is not None
        distance = jnp.where(zone.holds(m, n), zone.query(m) - zone.key(n), distance)
    return distance

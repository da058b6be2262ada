"""What a span is: a test per pair of positions, a conservative test per tile, and what a cache must keep for it."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import numpy as np

from models.errors import require
from models.registry import Registry

Array = jax.Array

# Sums and differences of two numbers of tokens up to this one are int32.
MOST_TOKENS = 2**30


class Bounds(NamedTuple):
    """The lowest and the highest position of the tokens of a tile, both among them."""

    low: Array
    high: Array


@dataclass(frozen=True)
class Visibility:
    """Base of the family; a field `span` in a configuration names an alternative.

    Positions count from 0 within a document. Document boundaries and padding hold for every alternative, outside it.
    Every alternative lets a token see itself, and so does every combination: no token attends to nothing.
    """

    registry: ClassVar[Registry] = Registry("span.name")
    name: ClassVar[str]

    def sees(self, query_position: Array, key_position: Array) -> Array:
        """Whether a query sees a key of its document, bool of the two shapes broadcast. Causality is decided here."""
        raise NotImplementedError

    def sees_some(self, query: Bounds, key: Bounds) -> Array:
        """Whether any query of a tile could see any of its keys, bool of the bounds' shapes broadcast.

        All that is known are bounds, whatever the order of the tokens and of whatever documents. May say yes too often,
        never no wrongly.
        """
        raise NotImplementedError

    def is_causal(self) -> bool:
        """Whether no query ever sees a key of a larger position."""
        return True

    def remembers(self) -> tuple[int, int] | None:
        """(first, latest): a query sees no key but the `first` of its document and the `latest` up to itself.

        A cache may forget all others. None where any key may be seen at any distance.
        """
        return None

    def keys_seen(self, position: np.ndarray, length: int) -> np.ndarray:
        """How many keys a query at each position of one document of `length` tokens sees, itself included.

        Counted one by one here; alternatives know it in closed form.
        """
        key_position = np.arange(length)
        seen = (self.sees(query, key_position) for query in position)  # type: ignore[arg-type]
        return np.array([np.count_nonzero(keys) for keys in seen])


def require_tokens(field: str, value: int) -> None:
    """Raises InvalidInput unless `value` is a number of tokens that positions can be compared with."""
    require(value >= 1, field, value, "at least 1")
    require(value <= MOST_TOKENS, field, value, f"at most {MOST_TOKENS}")

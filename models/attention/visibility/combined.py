"""Spans made of others: what all of them see, and what any of them sees."""

import functools
import operator
from dataclasses import dataclass

from models.attention.visibility.segments import Chunked
from models.attention.visibility.span import Array, Bounds, Visibility
from models.attention.visibility.sparse import GlobalTokens
from models.attention.visibility.windows import Sliding
from models.errors import require


def _require_spans(of: tuple[Visibility, ...]) -> None:
    spans = isinstance(of, tuple) and len(of) >= 1 and all(isinstance(span, Visibility) for span in of)
    require(spans, "of", of, "a list of one or more spans")


@Visibility.registry.register("and")
@dataclass(frozen=True)
class And(Visibility):
    """What every span in `of` sees; by default a window that ends at the borders of chunks.

    A tile is skipped where any of them skips it. Causal where any of them is.
    """

    of: tuple[Visibility, ...] = (Sliding(), Chunked())

    def __post_init__(self):
        _require_spans(self.of)

    def sees(self, query_position: Array, key_position: Array) -> Array:
        return functools.reduce(operator.and_, (span.sees(query_position, key_position) for span in self.of))

    def sees_some(self, query: Bounds, key: Bounds) -> Array:
        return functools.reduce(operator.and_, (span.sees_some(query, key) for span in self.of))

    def is_causal(self) -> bool:
        return any(span.is_causal() for span in self.of)

    def remembers(self) -> tuple[int, int] | None:
        """What the member that keeps the fewest keys remembers: all that is seen is among them."""
        kept = [memory for span in self.of if (memory := span.remembers()) is not None]
        return min(kept, key=sum, default=None)


@Visibility.registry.register("or")
@dataclass(frozen=True)
class Or(Visibility):
    """What any span in `of` sees; by default a window and global tokens (Beltagy et al. 2020, figure 2d, causal).

    A tile is skipped where all of them skip it. Causal where all of them are.
    """

    of: tuple[Visibility, ...] = (Sliding(), GlobalTokens())

    def __post_init__(self):
        _require_spans(self.of)

    def sees(self, query_position: Array, key_position: Array) -> Array:
        return functools.reduce(operator.or_, (span.sees(query_position, key_position) for span in self.of))

    def sees_some(self, query: Bounds, key: Bounds) -> Array:
        return functools.reduce(operator.or_, (span.sees_some(query, key) for span in self.of))

    def is_causal(self) -> bool:
        return all(span.is_causal() for span in self.of)

    def remembers(self) -> tuple[int, int] | None:
        kept = [memory for span in self.of if (memory := span.remembers()) is not None]
        if len(kept) < len(self.of):
            return None
        return max(first for first, _ in kept), max(latest for _, latest in kept)

"""Which keys a query sees: the family of spans, one registry, and the masks and live tiles that attention asks for."""

from models.attention.visibility.combined import And, Or
from models.attention.visibility.segments import Chunked, Prefix
from models.attention.visibility.span import Bounds, Visibility
from models.attention.visibility.sparse import BlockSparse, GlobalTokens, Strided
from models.attention.visibility.tiles import live_tiles, visible
from models.attention.visibility.windows import Dilated, Full, Sinks, Sliding

__all__ = [
    "And",
    "BlockSparse",
    "Bounds",
    "Chunked",
    "Dilated",
    "Full",
    "GlobalTokens",
    "Or",
    "Prefix",
    "Sinks",
    "Sliding",
    "Strided",
    "Visibility",
    "live_tiles",
    "visible",
]

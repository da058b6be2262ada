"""What happens to positions and distances before a scheme sees them; importing this package fills the registry."""

from models.positions.index.distances import Clipped, DualChunk, Grouped, LeakyClipped, Reindexed
from models.positions.index.index import Identity, Index, Zone, zoned_distance
from models.positions.index.positions import Interpolated, Randomized, Shifted

__all__ = [
    "Clipped",
    "DualChunk",
    "Grouped",
    "Identity",
    "Index",
    "Interpolated",
    "LeakyClipped",
    "Randomized",
    "Reindexed",
    "Shifted",
    "Zone",
    "zoned_distance",
]

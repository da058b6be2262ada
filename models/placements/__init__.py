"""Where norms stand around a sublayer. A placement is one small class in one small file."""

from models.placements.placement import PLACEMENTS, Placement
from models.placements.post import Post
from models.placements.pre import Pre

__all__ = ["PLACEMENTS", "Placement", "Post", "Pre"]

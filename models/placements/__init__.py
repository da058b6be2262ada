"""Where norms stand around the sublayers of a layer. A placement is one small class; related ones share a file."""

from models.placements.deepnorm import DeepNorm
from models.placements.mixed import Mixed
from models.placements.none import NoNorm
from models.placements.parallel import Parallel
from models.placements.peri import Peri, PostInside
from models.placements.placement import Gains, Layer, Placement
from models.placements.post import Post
from models.placements.pre import Pre
from models.placements.scaled import LayerScale, ReZero, Scaled

__all__ = [
    "DeepNorm",
    "Gains",
    "Layer",
    "LayerScale",
    "Mixed",
    "NoNorm",
    "Parallel",
    "Peri",
    "Placement",
    "Post",
    "PostInside",
    "Pre",
    "ReZero",
    "Scaled",
]

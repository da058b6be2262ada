"""Mixed norms: post-norm in the first layers, pre-norm in the rest."""

import math
from dataclasses import dataclass

import jax.numpy as jnp

from models.errors import require
from models.placements.placement import Placement


@Placement.registry.register("mixed")
@dataclass(frozen=True)
class Mixed(Placement):
    """norm(x + f(x)) in the first ⌊share · layers⌋ layers and x + f(norm(x)) after them, and a norm after the last.

    share: of layers that are post-norm, from 0 to 1. Either order has one norm a sublayer, so all layers hold the same
    parameters and one compiled layer can be either.
    Source: Mix-LN (Li et al. 2025, arXiv:2412.13795, section 3), whose share is 0.25.
    """

    counts_layers = True

    share: float = 0.25

    def __post_init__(self):
        require(0 <= self.share <= 1, "share", self.share, "from 0 to 1")

    def post_layers(self, layers: int) -> int:
        """How many of the layers are post-norm."""
        return math.floor(self.share * layers + 1e-9)

    def residual(self, x_BxLxD, name, sublayer, layer):
        norm, is_post = layer.norm(f"{name}_norm"), layer.number < self.post_layers(layer.layers)
        added = x_BxLxD + sublayer(jnp.where(is_post, x_BxLxD, norm(x_BxLxD)))
        return jnp.where(is_post, norm(added), added)

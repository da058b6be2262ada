"""Parallel sublayers: attention and feed-forward read the same stream, side by side."""

from dataclasses import dataclass

from models.errors import require
from models.placements.placement import Placement


@Placement.registry.register("parallel")
@dataclass(frozen=True)
class Parallel(Placement):
    """x + attention(norm(x)) + feed-forward(norm(x)), and a norm after the last layer.

    norms: 1, which both read (GPT-J, Wang & Komatsuzaki 2021; PaLM, Chowdhery et al. 2022, section 2), or 2, each its
    own (GPT-NeoX, Black et al. 2022, arXiv:2204.06745, section 2.1).
    """

    norms: int = 1

    def __post_init__(self):
        require(self.norms in (1, 2), "norms", self.norms, "1 or 2")

    def apply(self, x_BxLxD, layer):
        if self.norms == 1:
            read = layer.norm("input_norm")(x_BxLxD)
            return sum((sublayer(read) for sublayer in layer.sublayers.values()), x_BxLxD)
        added = (sublayer(layer.norm(f"{name}_input_norm")(x_BxLxD)) for name, sublayer in layer.sublayers.items())
        return sum(added, x_BxLxD)

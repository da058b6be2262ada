"""No norm anywhere."""

from dataclasses import dataclass

from models.placements.placement import Placement


@Placement.registry.register("none")
@dataclass(frozen=True)
class NoNorm(Placement):
    """x + f(x): what every other placement is compared with. Deep stacks need a low learning rate."""

    final_norm = False

    def residual(self, x_BxLxD, name, sublayer, layer):
        return x_BxLxD + sublayer(x_BxLxD)

"""Pre-norm: the residual stream itself is never normalized."""

from dataclasses import dataclass

from models.placements.placement import Placement


@Placement.registry.register("pre")
@dataclass(frozen=True)
class Pre(Placement):
    """x + f(norm(x)), and a norm after the last layer (Xiong et al. 2020, arXiv:2002.04745).

    The stream grows with depth, and deep layers change it less and less; gradients do not vanish at any depth.
    """

    def residual(self, x_BxLxD, name, sublayer, layer):
        return x_BxLxD + sublayer(layer.norm(f"{name}_input_norm")(x_BxLxD))

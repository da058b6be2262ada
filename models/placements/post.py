"""Post-norm: the residual stream is normalized after every sublayer."""

from dataclasses import dataclass

from models.placements.placement import Placement


@Placement.registry.register("post")
@dataclass(frozen=True)
class Post(Placement):
    """norm(x + f(x)); the last layer's own norm is the last (Vaswani et al. 2017, section 3.1).

    Deep stacks need a warm-up and a low learning rate: fresh gradients shrink from the last layer to the first (Xiong
    et al. 2020, arXiv:2002.04745).
    """

    final_norm = False

    def residual(self, x_BxLxD, name, sublayer, layer):
        return layer.norm(f"{name}_output_norm")(x_BxLxD + sublayer(x_BxLxD))

"""Norms on what a sublayer gives to the residual stream, with and without one on what it takes."""

from dataclasses import dataclass

from models.placements.placement import Placement


@Placement.registry.register("peri")
@dataclass(frozen=True)
class Peri(Placement):
    """x + norm(f(norm(x))), and a norm after the last layer: the sandwich norm.

    What a sublayer adds has a learned size, however large its kernels become. Source: CogView (Ding et al. 2021,
    arXiv:2105.13290, section 2.4); Gemma 2 and 3; Peri-LN (Kim et al. 2025, arXiv:2502.02732), whose optional norm on
    the embeddings is not here.
    """

    def residual(self, x_BxLxD, name, sublayer, layer):
        taken = layer.norm(f"{name}_input_norm")(x_BxLxD)
        return x_BxLxD + layer.norm(f"{name}_output_norm")(sublayer(taken))


@Placement.registry.register("post_inside")
@dataclass(frozen=True)
class PostInside(Placement):
    """x + norm(f(x)), and a norm after the last layer: post-norm inside the residual branch.

    Source: Swin Transformer V2 (Liu et al. 2022, arXiv:2111.09883, section 3.2); the reordered norm of OLMo 2 (2025,
    arXiv:2501.00656, section 3.3.2), which has a norm on queries and keys beside it.
    """

    def residual(self, x_BxLxD, name, sublayer, layer):
        return x_BxLxD + layer.norm(f"{name}_output_norm")(sublayer(x_BxLxD))

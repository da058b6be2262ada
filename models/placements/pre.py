"""Pre-norm: the residual stream itself is never normalized (Xiong et al. 2020)."""

from models.placements.placement import PLACEMENTS, Placement


@PLACEMENTS.register("pre")
class Pre(Placement):
    """x + f(norm(x)), and a norm after the last layer."""

    final_norm = True

    @staticmethod
    def residual(x, sublayer, norm):
        return x + sublayer(norm("input")(x))

"""Post-norm: the residual stream is normalized after every sublayer (Vaswani et al. 2017)."""

from models.placements.placement import PLACEMENTS, Placement


@PLACEMENTS.register("post")
class Post(Placement):
    """norm(x + f(x)); the last layer's own norm is the last."""

    final_norm = False

    @staticmethod
    def residual(x, sublayer, norm):
        return norm("output")(x + sublayer(x))

"""DeepNorm: post-norm with a wider residual stream and smaller initial kernels."""

from dataclasses import dataclass

from models.errors import require, require_choice
from models.placements.placement import Gains, Placement

STACKS = ("decoder", "encoder", "decoder_with_encoder", "encoder_with_decoder")


@Placement.registry.register("deepnorm")
@dataclass(frozen=True)
class DeepNorm(Placement):
    """norm(α·x + f(x)); kernels that make values, feed-forward and outputs begin β times as large as others.

    stack: what the layers are, of N layers an encoder and M a decoder:

        decoder               α = (2M)^¼           β = (8M)^-¼
        encoder               α = (2N)^¼           β = (8N)^-¼
        decoder_with_encoder  α = (3M)^¼           β = (12M)^-¼
        encoder_with_decoder  α = 0.81·(N⁴M)^¹⁄₁₆  β = 0.87·(N⁴M)^-¹⁄₁₆

    decoder_layers: M, which an encoder with a decoder needs; None is as many as its own.

    Source: DeepNet (Wang et al. 2022, arXiv:2203.00555, figure 2). Its kernels begin as Xavier's normal ones, β of
    them; here β multiplies 1/√inputs, for square ones the same but for the normal's cut at two standard deviations.
    """

    final_norm = False

    stack: str = "decoder"
    decoder_layers: int | None = None

    def __post_init__(self):
        require_choice("stack", self.stack, STACKS)
        at_least_one = self.decoder_layers is None or self.decoder_layers >= 1
        require(at_least_one, "decoder_layers", self.decoder_layers, "at least 1")
        useful = self.decoder_layers is None or self.stack == "encoder_with_decoder"
        require(useful, "decoder_layers", self.decoder_layers, "None unless stack is 'encoder_with_decoder'")

    def alpha(self, layers: int) -> float:
        """The factor on the residual stream in a stack of so many layers."""
        return self._constants(layers)[0]

    def residual(self, x_BxLxD, name, sublayer, layer):
        return layer.norm(f"{name}_output_norm")(self.alpha(layer.layers) * x_BxLxD + sublayer(x_BxLxD))

    def gains(self, layers):
        beta = self._constants(layers)[1]
        return Gains(beta, beta)

    def _constants(self, layers: int) -> tuple[float, float]:
        if self.stack == "encoder_with_decoder":
            both = layers**4 * (self.decoder_layers or layers)
            return 0.81 * both ** (1 / 16), 0.87 * both ** (-1 / 16)
        wide, small = (3, 12) if self.stack == "decoder_with_encoder" else (2, 8)
        return (wide * layers) ** 0.25, (small * layers) ** -0.25

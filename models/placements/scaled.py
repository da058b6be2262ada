"""Factors on what a sublayer adds to the residual stream: given, learned from zero, and learned per channel."""

import math
from dataclasses import dataclass

import flax.linen as nn

from models.errors import require
from models.placements.placement import Gains, Placement
from models.positions.scheme import ParameterSpec


@dataclass(frozen=True)
class _Factor(Placement):
    """Kernels begin at their full size: the factor is what keeps the stream from growing."""

    def gains(self, layers):
        return Gains(1.0, 1.0)


@Placement.registry.register("scaled")
@dataclass(frozen=True)
class Scaled(_Factor):
    """x + s·f(norm(x)), and a norm after the last layer.

    scale: s, above 0; None is 1/√(2 · layers), under which the stream of a fresh stack has the same size at any depth.
    Source: 0.1 to 0.3 in Szegedy et al. 2017 (arXiv:1602.07261, section 3.3); 1/√(sublayers) in De & Smith
    2020 (arXiv:2002.10444, for residual blocks); 1.4/√layers in MiniCPM (Hu et al. 2024, arXiv:2404.06395).
    """

    scale: float | None = None

    def __post_init__(self):
        above_zero = self.scale is None or 0 < self.scale < math.inf
        require(above_zero, "scale", self.scale, "a finite number above 0, or None for 1/√(2 · layers)")

    def residual(self, x_BxLxD, name, sublayer, layer):
        scale = 1 / math.sqrt(2 * layer.layers) if self.scale is None else self.scale
        return x_BxLxD + scale * sublayer(layer.norm(f"{name}_input_norm")(x_BxLxD))


@Placement.registry.register("rezero")
@dataclass(frozen=True)
class ReZero(_Factor):
    """x + α·f(x) with one learned α a layer, which begins at 0 and which its sublayers share; no norm anywhere.

    A fresh stack is the identity at any depth. Source: Bachlechner et al. 2020 (arXiv:2003.04887, section 5).
    """

    final_norm = False

    def parameters(self, width, sublayers):
        return {"scale": ParameterSpec((), nn.initializers.zeros, ())}

    def residual(self, x_BxLxD, name, sublayer, layer):
        return x_BxLxD + layer.parameters["scale"].astype(x_BxLxD.dtype) * sublayer(x_BxLxD)


@Placement.registry.register("layer_scale")
@dataclass(frozen=True)
class LayerScale(_Factor):
    """x + λ ⊙ f(norm(x)) with a learned λ per channel and sublayer, and a norm after the last layer.

    initial: what λ begins at, above 0. The source takes 0.1 up to a depth of 18 layers, 1e-5 up to 24 and 1e-6 beyond.
    Source: CaiT (Touvron et al. 2021, arXiv:2103.17239, section 2).
    """

    initial: float = 0.1

    def __post_init__(self):
        require(0 < self.initial < math.inf, "initial", self.initial, "a finite number above 0")

    def parameters(self, width, sublayers):
        begin = nn.initializers.constant(self.initial)
        return {f"{name}_scale": ParameterSpec((width,), begin, ("embed",)) for name in sublayers}

    def residual(self, x_BxLxD, name, sublayer, layer):
        scale_D = layer.parameters[f"{name}_scale"].astype(x_BxLxD.dtype)
        return x_BxLxD + scale_D * sublayer(layer.norm(f"{name}_input_norm")(x_BxLxD))

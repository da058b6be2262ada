"""What a norm placement decides: how the sublayers of one layer, their norms and the residual stream come together."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax

from models.positions.scheme import ParameterSpec
from models.registry import Registry

Array = jax.Array
Function = Callable[[Array], Array]


class Gains(NamedTuple):
    """Factors on the standard deviation of initial kernels, 1/√inputs before the normal is cut off at two of it.

    inner: of those that make values and the hidden units of feed-forward. output: of those that lead back to the
    residual stream. Kernels that make queries and keys have 1.
    """

    inner: float
    output: float


class Layer(NamedTuple):
    """One layer, as a placement sees it.

    sublayers: by name, in order; each a function [B, L, D] -> [B, L, D], to be called once.
    norm: makes the norm whose parameters have this name; it may be called several times. Norms of one sublayer are
      called after it, "attention_input_norm".
    parameters: the numbers that the placement has learned (see Placement.parameters).
    number: the layer's place in the stack from 0, int32 []; None where the placement does not count layers.
    layers: how many the stack has.
    """

    sublayers: Mapping[str, Function]
    norm: Callable[[str], Function]
    parameters: dict[str, Array]
    number: Array | None
    layers: int


@dataclass(frozen=True)
class Placement:
    """Base of the family. In the formulas, x is the residual stream and f a sublayer: attention, or feed-forward.

    final_norm: whether the stack ends in a norm of its own.
    counts_layers: whether a layer needs to know its number.
    """

    registry: ClassVar[Registry] = Registry("norm.placement.name")
    name: ClassVar[str]
    final_norm: ClassVar[bool] = True
    counts_layers: ClassVar[bool] = False

    def apply(self, x_BxLxD: Array, layer: Layer) -> Array:
        """The residual stream after a layer: by default, after one sublayer and then the next."""
        for name, sublayer in layer.sublayers.items():
            x_BxLxD = self.residual(x_BxLxD, name, sublayer, layer)
        return x_BxLxD

    def residual(self, x_BxLxD: Array, name: str, sublayer: Function, layer: Layer) -> Array:
        """The residual stream after the sublayer of that name."""
        raise NotImplementedError

    def parameters(self, width: int, sublayers: tuple[str, ...]) -> dict[str, ParameterSpec]:
        """Learned numbers of one layer that has these sublayers, beside its norms'."""
        return {}

    def gains(self, layers: int) -> Gains:
        """How large kernels begin in a stack of so many layers.

        By default 1/√(2 · layers) for those that lead to the residual stream, so that the sum of all sublayers does not
        grow with depth (Radford et al. 2019, section 2.3).
        """
        return Gains(1.0, 1 / math.sqrt(2 * layers))

"""The contract of RoPE scaling: a rule that replaces the rotary frequencies so that a longer context fits."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import numpy as np

from models.errors import require
from models.positions.original_length import filled_length
from models.registry import Registry


def require_pairs(width: int, field: str) -> None:
    """Raises InvalidInput, naming `field`, unless the rotary width is a number of pairs."""
    require(width >= 2 and width % 2 == 0, field, width, "even for rotary positions")


def plain_frequencies(base: float, width: int) -> np.ndarray:
    """`θ_i = base^(-2i/width)`, radians per token, float64 [width/2]. Source: Su et al. (2021), "RoFormer", eq. 15.

    Raises InvalidInput unless the rotary width (the head size) is even.
    """
    require_pairs(width, "head_size")
    return base ** -(np.arange(0, width, 2) / width)


def turns(frequencies: np.ndarray, length: float) -> np.ndarray:
    """How many times each pair turns around over `length` tokens, `length·θ_i / 2π`, float64 [pairs]."""
    return length * frequencies / (2 * math.pi)


def require_factor(factor: float) -> None:
    """Raises InvalidInput unless `factor`, how many times the context is extended, is a finite number from 1 on."""
    require(math.isfinite(factor) and factor >= 1, "factor", factor, "a finite number of at least 1")


def known_length(original_length: int | None) -> int:
    """The original length of a scaling, in tokens. Raises InvalidInput while it is None."""
    return filled_length("position.scaling.original_length", original_length)


@dataclass(frozen=True)
class Scaling:
    """A rule for the rotary frequencies.

    At factor 1, with its other fields at their defaults, every rule gives plain RoPE exactly: `dynamic_ntk`, which
    follows the current length, up to the original one, and all others at any length. (Lists that `longrope` is given
    hold whatever its factor, which its temperature alone looks at.)

    A rule which refers to the length before scaling has a field `original_length`, in tokens; None stands for the
    length trained at, to be filled in before use: using it unfilled raises InvalidInput.
    """

    registry: ClassVar[Registry] = Registry("position.scaling.name")
    name: ClassVar[str]
    depends_on_length: ClassVar[bool] = False

    def check(self, width: int) -> None:
        """Raises InvalidInput where the rule does not fit a rotary width."""

    def frequencies(self, base: float, width: int) -> np.ndarray:
        """Radians per token of each pair of the rotary width, float64 [width/2], from the highest to the lowest.

        Of a rule that `depends_on_length`: those up to its original length.
        """
        return plain_frequencies(base, width)

    def at_length(self, length: int) -> "Scaling":
        """The rule whose `frequencies` are what this one uses at a current length in tokens."""
        return self

    def frequencies_at(self, base: float, width: int, length: jax.Array) -> jax.Array:
        """Frequencies at a current length, float32 [*length.shape, width/2], for a rule that `depends_on_length`."""
        raise NotImplementedError(f"{self.name} does not depend on the length")

    def current_length(self, position: jax.Array) -> jax.Array:
        """The length in tokens that a query at `position` is rotated at, for a rule that `depends_on_length`."""
        raise NotImplementedError(f"{self.name} does not depend on the length")

    def differs_by_token(self) -> bool:
        """Whether `frequencies_of` looks at where tokens stand, for a rule that `depends_on_length`."""
        return False

    def frequencies_of(self, base: float, width: int, position: jax.Array, frequencies: jax.Array) -> jax.Array:
        """What tokens at `position` are rotated by, float32 [*position.shape, width/2] or `frequencies` as they are,
        those of the query's length [..., width/2]; for a rule that `depends_on_length`."""
        return frequencies

    def amplitude(self) -> float:
        """The attention factor: what cosines and sines are multiplied by, so that logits are by its square."""
        return 1.0

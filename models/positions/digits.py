"""The digits of a position in some base, each embedded for itself, and summed."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from models.errors import require, require_choice
from models.positions.scheme import Array, ParameterSpec, PositionScheme

KINDS = ("learned", "sinusoidal")
LARGEST_POSITION = np.iinfo(np.int32).max


@PositionScheme.registry.register("base_n")
@dataclass(frozen=True)
class BaseN(PositionScheme):
    """Adds `Σ_k e_k(d_k)` for a position `t = Σ_k d_k · base^k`, digits `0 ≤ d_k < base`, places k = 0 … digits - 1.

    kind: "learned" has e_k(d) as row d of the table of place k. "sinusoidal" gives each place an equal part of the
      width, since alike sinusoids would confuse the places: there, with the part's size w, e_k(d) is all `sin(d·ω_i)`
      and then all `cos(d·ω_i)` with `ω_i = base^(-2i/w)`, and 0 elsewhere.
    Positions from base^digits on have no such digits, and are refused. Below, a digit that the training length never
    showed (the highest, as a rule) is as unknown as a position; the lower digits recur at every length.
    Source: Su (2023), "Transformer upgrade path 10: RoPE is a base-β encoding", the digits of its first sections.
    """

    takes: ClassVar[str] = "whole positions"

    base: int = 16
    digits: int = 4
    kind: str = "learned"

    def __post_init__(self):
        require(self.base >= 2, "base", self.base, "at least 2")
        require(self.digits >= 1, "digits", self.digits, "at least 1")
        fits = self.base**self.digits <= LARGEST_POSITION
        require(fits, "digits", self.digits, f"so few that base^digits is at most {LARGEST_POSITION}")
        require_choice("kind", self.kind, KINDS)

    def check_width(self, width: int) -> None:
        fits = self.kind == "learned" or width % (2 * self.digits) == 0
        require(fits, "width", width, f"a multiple of {2 * self.digits}, two per digit, for sinusoidal digits")

    def maximum_length(self) -> int:
        return self.base**self.digits

    def embedding_parameters(self, width: int) -> dict[str, ParameterSpec]:
        """The tables [digits, base, width] of the learned kind."""
        if self.kind == "sinusoidal":
            return {}
        shape, axes = (self.digits, self.base, width), (None, None, "embed")
        return {"table": ParameterSpec(shape, jax.nn.initializers.normal(0.02), axes)}

    def embed(self, parameters: dict[str, Array], position_BxL: Array, width: int) -> Array:
        """float32 [B or 1, L, width]; NaN at positions without such digits. Raises InvalidInput where the width does
        not divide into an even part for each place of the sinusoidal kind."""
        digits = [position_BxL // self.base**place % self.base for place in range(self.digits)]
        if self.kind == "learned":
            table = parameters["table"].astype(jnp.float32)
            added_BxLxD = sum(jnp.take(table[k], digit, axis=0, mode="clip") for k, digit in enumerate(digits))
        else:
            self.check_width(width)
            part = width // self.digits
            frequency = (float(self.base) ** -(np.arange(0, part, 2) / part)).astype(np.float32)
            angles = [digit[:, :, None].astype(jnp.float32) * frequency for digit in digits]
            added_BxLxD = jnp.concatenate([f(angle) for angle in angles for f in (jnp.sin, jnp.cos)], axis=-1)
        defined_BxL = (position_BxL >= 0) & (position_BxL < self.maximum_length())
        return jnp.where(defined_BxL[:, :, None], added_BxLxD, jnp.nan)

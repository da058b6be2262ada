"""Fixed sines and cosines added to the embeddings."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from models.errors import require, require_choice
from models.positions.scheme import Array, PositionScheme

LAYOUTS = ("concatenated", "interleaved")


@PositionScheme.registry.register("sinusoidal")
@dataclass(frozen=True)
class Sinusoidal(PositionScheme):
    """Adds `sin(pω_i)` and `cos(pω_i)` with `ω_i = base^(-2i/width)`.

    layout: "concatenated" puts all sines before all cosines (tensor2tensor); "interleaved" alternates them (the paper).
    Defined at every position, but beyond its training length a model meets sums that it never saw.
    Source: Vaswani et al. (2017), "Attention Is All You Need", section 3.5.
    """

    takes: ClassVar[str] = "positions"

    layout: str = "concatenated"
    base: float = 10000.0

    def __post_init__(self):
        require_choice("layout", self.layout, LAYOUTS)
        require(math.isfinite(self.base) and self.base > 1, "base", self.base, "a finite number above 1")

    def check_width(self, width: int) -> None:
        require(width % 2 == 0, "width", width, "even for sinusoidal positions")

    def embed(self, parameters: dict[str, Array], position_BxL: Array, width: int) -> Array:
        """float32 [B or 1, L, width]; the angles are float32 products of integer positions. Raises InvalidInput when
        `width` is odd."""
        self.check_width(width)
        frequency_W = (self.base ** -(np.arange(0, width, 2) / width)).astype(np.float32)
        angle_BxLxW = position_BxL[:, :, None].astype(jnp.float32) * frequency_W
        sine, cosine = jnp.sin(angle_BxLxW), jnp.cos(angle_BxLxW)
        if self.layout == "concatenated":
            return jnp.concatenate([sine, cosine], axis=-1)
        return jnp.stack([sine, cosine], axis=-1).reshape(*position_BxL.shape, width)

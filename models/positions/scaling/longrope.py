"""LongRoPE: every frequency divided by a number of its own, found by a search."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from models.errors import require
from models.positions.original_length import require_original_length
from models.positions.scaling.rule import Scaling, known_length, plain_frequencies, require_factor


@Scaling.registry.register("longrope")
@dataclass(frozen=True)
class LongRoPE(Scaling):
    """`θ_i / λ_i`, with λ from `short_factor` up to the original length and from `long_factor` beyond it.

    Every query is rotated by the list of the length it has itself, its position + 1, and so are the keys it looks at.
    So a logit does not depend on how many tokens follow it, and decoding equals prefilling across the change of lists.
    (Implementations that take one list for a whole text, by its length, agree on the queries beyond the original
    length, and on all of a shorter text.)

    short_factor, long_factor: λ of each pair from the highest frequency to the lowest; one number stands for all.
    factor: how many times the context is extended, which only the temperature looks at:
      `√(1 + ln(factor)/ln(original length))` on cosines and sines, at every length.
    attention_factor: the temperature itself, in the place of the formula.
    unscaled_tokens: n̂, how many first tokens of a document keep the plain frequencies θ_i, whoever looks at them.
    Source: Ding et al. (2024), "LongRoPE", section 3; the temperature and the two lists as released with Phi-3, which
    has no n̂. experiments/search.py finds lists and n̂ for a checkpoint.
    """

    depends_on_length: ClassVar[bool] = True

    factor: float = 1.0
    original_length: int | None = None
    short_factor: tuple[float, ...] = (1.0,)
    long_factor: tuple[float, ...] = (1.0,)
    attention_factor: float | None = None
    unscaled_tokens: int = 0

    def __post_init__(self):
        require_factor(self.factor)
        require_original_length(self.original_length, least=2)  # its logarithm is above 0
        for name in ("short_factor", "long_factor"):
            value = getattr(self, name)
            positive = len(value) > 0 and all(0 < one < math.inf for one in value)
            require(positive, name, value, "a list of finite numbers above 0")
        positive = self.attention_factor is None or 0 < self.attention_factor < math.inf
        require(positive, "attention_factor", self.attention_factor, "a finite number above 0")
        require(self.unscaled_tokens >= 0, "unscaled_tokens", self.unscaled_tokens, "at least 0 tokens")

    def check(self, width: int) -> None:
        for name in ("short_factor", "long_factor"):
            value = getattr(self, name)
            fits = len(value) in (1, width // 2)
            require(fits, name, value, f"a list of {width // 2} numbers, one for each rotary pair, or of one for all")

    def frequencies(self, base: float, width: int) -> np.ndarray:
        self.check(width)
        return plain_frequencies(base, width) / np.asarray(self.short_factor, np.float64)

    def at_length(self, length: int) -> Scaling:
        chosen = self.long_factor if length > known_length(self.original_length) else self.short_factor
        return replace(self, short_factor=chosen, long_factor=chosen)

    def current_length(self, position: jax.Array) -> jax.Array:
        """One of two lengths, so that queries share them: the original one, or one more."""
        original = known_length(self.original_length)
        return original + (position >= original).astype(jnp.int32)

    def frequencies_at(self, base: float, width: int, length: jax.Array) -> jax.Array:
        original = known_length(self.original_length)
        short, long = (
            jnp.asarray(self.at_length(at).frequencies(base, width), jnp.float32) for at in (original, original + 1)
        )
        return jnp.where((length > original)[..., None], long, short)

    def differs_by_token(self) -> bool:
        return self.unscaled_tokens > 0

    def frequencies_of(self, base: float, width: int, position: jax.Array, frequencies: jax.Array) -> jax.Array:
        plain = jnp.asarray(plain_frequencies(base, width), jnp.float32)
        return jnp.where(position[..., None] < self.unscaled_tokens, plain, frequencies)

    def amplitude(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        if self.factor == 1:
            return 1.0
        return math.sqrt(1 + math.log(self.factor) / math.log(known_length(self.original_length)))

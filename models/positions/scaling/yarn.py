"""Rules which keep high frequencies and interpolate low ones: NTK-by-parts, and YaRN, which adds a temperature."""

import math
from dataclasses import dataclass

import numpy as np

from models.errors import invalid, require, require_choice
from models.positions.original_length import require_original_length
from models.positions.scaling.rule import (
    Scaling,
    known_length,
    plain_frequencies,
    require_factor,
    turns,
)

RAMPS = ("code", "paper")


def turns_ramp(base: float, width: int, original_length: int, slow: float, fast: float) -> np.ndarray:
    """How much of each frequency to keep, float64 [width/2] in [0, 1], linear in its turns over the original length.

    0 up to `slow` turns, 1 from `fast` on. Source: Peng et al. (2023), "YaRN", section 3.2.
    """
    over_original = turns(plain_frequencies(base, width), original_length)
    return np.clip((over_original - slow) / (fast - slow), 0.0, 1.0)


def index_ramp(
    base: float, width: int, original_length: int, slow: float, fast: float, truncate: bool = True
) -> np.ndarray:
    """How much of each frequency to keep, float64 [width/2] in [0, 1], linear in its index.

    1 up to the index that turns `fast` times over the original length, 0 from the one that turns `slow` times on;
    `truncate` widens the two to whole indices. Source: the YaRN authors' code, which transformers and vLLM follow, and
    which is followed here where it means nothing too: over fewer than 2π tokens, hardly anything is interpolated.
    """

    def index(count: float) -> float:
        return width * math.log(original_length / (count * 2 * math.pi)) / (2 * math.log(base))

    low, high = index(fast), index(slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    if low == high:
        high += 0.001  # as in that code: a step in the place of a division by zero
    return 1.0 - np.clip((np.arange(width // 2) - low) / (high - low), 0.0, 1.0)


def blend(base: float, width: int, factor: float, keep: np.ndarray) -> np.ndarray:
    """Frequencies from interpolated (`keep` 0) to plain (`keep` 1), float64 [width/2]; exactly plain at factor 1."""
    plain = plain_frequencies(base, width)
    interpolated = plain / factor
    return interpolated + keep * (plain - interpolated)


@Scaling.registry.register("ntk_by_parts")
@dataclass(frozen=True)
class NTKByParts(Scaling):
    """Pairs that turn more than `beta` times over the original length keep their frequency, those below `alpha` turns
    are divided by `factor`, a linear ramp over the turns in between; no temperature.

    Source: Peng et al. (2023), "YaRN", section 3.2, definition 2.
    """

    factor: float = 1.0
    original_length: int | None = None
    alpha: float = 1.0
    beta: float = 32.0

    def __post_init__(self):
        require_factor(self.factor)
        require_original_length(self.original_length)
        require(self.alpha > 0, "alpha", self.alpha, "above 0")
        require(self.beta > self.alpha, "beta", self.beta, f"above alpha ({self.alpha})")

    def frequencies(self, base: float, width: int) -> np.ndarray:
        length = known_length(self.original_length)
        return blend(base, width, self.factor, turns_ramp(base, width, length, self.alpha, self.beta))


def temperature(factor: float, weight: float = 1.0) -> float:
    """`0.1·weight·ln(factor) + 1`. Source: Peng et al. (2023), "YaRN", section 3.4; weight from DeepSeek's code."""
    return 0.1 * weight * math.log(factor) + 1.0


@Scaling.registry.register("yarn")
@dataclass(frozen=True)
class YaRN(Scaling):
    """NTK-by-parts with a temperature `0.1·ln(factor) + 1` on cosines and sines.

    ramp: "code" is linear in the index of the frequency, as the authors and everyone after them run it; "paper" is
      linear in its turns over the original length, as they print it. At factor 16 they differ by up to three times.
    beta_fast, beta_slow: the turns above which a frequency is kept and below which it is interpolated.
    truncate: whether the ends of the ramp are widened to whole indices; only the "code" ramp has indices.
    mscale, mscale_all_dim: given together, the temperature is the ratio of the two weighted temperatures (DeepSeek).
    attention_factor: the temperature itself, in the place of any formula.
    """

    factor: float = 1.0
    original_length: int | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    mscale: float | None = None
    mscale_all_dim: float | None = None
    attention_factor: float | None = None
    ramp: str = "code"

    def __post_init__(self):
        require_factor(self.factor)
        require_original_length(self.original_length)
        require(self.beta_slow > 0, "beta_slow", self.beta_slow, "above 0")
        require(self.beta_fast > self.beta_slow, "beta_fast", self.beta_fast, f"above beta_slow ({self.beta_slow})")
        for name in ("mscale", "mscale_all_dim", "attention_factor"):
            value = getattr(self, name)
            require(value is None or value > 0, name, value, "above 0")
        if self.mscale is not None and self.mscale_all_dim is None:
            raise invalid("mscale_all_dim", None, "a number too when mscale is given")
        if self.mscale is None and self.mscale_all_dim is not None:
            raise invalid("mscale", None, "a number too when mscale_all_dim is given")
        require_choice("ramp", self.ramp, RAMPS)

    def frequencies(self, base: float, width: int) -> np.ndarray:
        length = known_length(self.original_length)
        if self.ramp == "paper":
            keep = turns_ramp(base, width, length, self.beta_slow, self.beta_fast)
        else:
            keep = index_ramp(base, width, length, self.beta_slow, self.beta_fast, self.truncate)
        return blend(base, width, self.factor, keep)

    def amplitude(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale is not None and self.mscale_all_dim is not None:
            return temperature(self.factor, self.mscale) / temperature(self.factor, self.mscale_all_dim)
        return temperature(self.factor)

"""The rule of Llama 3.1."""

from dataclasses import dataclass

import numpy as np

from models.errors import require
from models.positions.original_length import require_original_length
from models.positions.scaling.rule import Scaling, known_length, require_factor
from models.positions.scaling.yarn import blend, turns_ramp


@Scaling.registry.register("llama3")
@dataclass(frozen=True)
class Llama3(Scaling):
    """Pairs that turn more than `high_freq_factor` times over the original length keep their frequency, those below
    `low_freq_factor` turns are divided by `factor`, a linear ramp over the turns in between; no temperature.

    So it is `ntk_by_parts` with other ends of its ramp. Llama 3.1 itself: factor 8, original length 8192.
    Source: the reference code of Llama 3.1 (`apply_scaling`); Grattafiori et al. (2024), "The Llama 3 Herd of Models".
    """

    factor: float = 1.0
    original_length: int | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def __post_init__(self):
        require_factor(self.factor)
        require_original_length(self.original_length)
        low, high = self.low_freq_factor, self.high_freq_factor
        require(low > 0, "low_freq_factor", low, "above 0")
        require(high > low, "high_freq_factor", high, f"above low_freq_factor ({low})")

    def frequencies(self, base: float, width: int) -> np.ndarray:
        length = known_length(self.original_length)
        keep = turns_ramp(base, width, length, self.low_freq_factor, self.high_freq_factor)
        return blend(base, width, self.factor, keep)

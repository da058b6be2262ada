"""Position interpolation."""

from dataclasses import dataclass

import numpy as np

from models.positions.scaling.rule import Scaling, plain_frequencies, require_factor


@Scaling.registry.register("linear")
@dataclass(frozen=True)
class Linear(Scaling):
    """Divides every frequency by `factor`, which squeezes longer contexts into the positions seen in training.

    Source: Chen et al. (2023), "Extending Context Window of Large Language Models via Position Interpolation".
    """

    factor: float = 1.0

    def __post_init__(self):
        require_factor(self.factor)

    def frequencies(self, base: float, width: int) -> np.ndarray:
        return plain_frequencies(base, width) / self.factor

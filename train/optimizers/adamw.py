"""Adam with decoupled weight decay."""

from dataclasses import dataclass

import optax

from models.errors import require
from train.optimizers.optimizer import Optimizer, Schedule, decay_mask, require_decay_rate, require_weight_decay


@Optimizer.registry.register("adamw")
@dataclass(frozen=True)
class AdamW(Optimizer):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101). Decay is multiplied by the learning rate.

    b1, b2: rates of the first and second moment's moving averages. epsilon: added to the root of the second moment.
    """

    learning_rate: float = 3e-3
    b1: float = 0.9
    b2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_decay_rate("b1", self.b1)
        require_decay_rate("b2", self.b2)
        require(self.epsilon > 0, "epsilon", self.epsilon, "positive")
        require_weight_decay(self.weight_decay)

    def update_rule(self, schedule: Schedule) -> optax.GradientTransformation:
        return optax.adamw(
            schedule, b1=self.b1, b2=self.b2, eps=self.epsilon, weight_decay=self.weight_decay, mask=decay_mask
        )

"""Lion: the sign of an interpolated momentum."""

from dataclasses import dataclass

import optax

from train.optimizers.optimizer import Optimizer, Schedule, decay_mask, require_decay_rate, require_weight_decay


@Optimizer.registry.register("lion")
@dataclass(frozen=True)
class Lion(Optimizer):
    """Lion (Chen et al. 2023, arXiv:2302.06675): one moment, updates of ±learning rate.

    Its learning rate is a tenth of AdamW's and its decay ten times AdamW's, so that their product agrees (section 5).
    b1: weight of the momentum in the update's sign. b2: rate of the momentum's moving average.
    """

    learning_rate: float = 3e-4
    b1: float = 0.9
    b2: float = 0.99
    weight_decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_decay_rate("b1", self.b1)
        require_decay_rate("b2", self.b2)
        require_weight_decay(self.weight_decay)

    def update_rule(self, schedule: Schedule) -> optax.GradientTransformation:
        return optax.lion(schedule, b1=self.b1, b2=self.b2, weight_decay=self.weight_decay, mask=decay_mask)

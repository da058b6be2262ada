"""Adafactor: second moments of matrices kept as a row and a column."""

from dataclasses import dataclass

import optax

from models.errors import require
from train.optimizers.optimizer import Optimizer, Schedule, decay_mask, require_decay_rate, require_weight_decay


@Optimizer.registry.register("adafactor")
@dataclass(frozen=True)
class Adafactor(Optimizer):
    """Adafactor (Shazeer and Stern 2018, arXiv:1804.04235), with updates relative to the parameter's size.

    learning_rate: relative step; a parameter moves by about this share of its root mean square (section 8).
    decay: exponent c of the second moment's rate 1 - step^-c (section 7.2).
    update_clip: largest root mean square of one parameter's update before the learning rate (section 6).
    momentum: rate of a moving average of the updates; 0 keeps none, which saves its memory.
    factored_size: a parameter is factored if its two largest axes are at least this long.
    weight_decay: decoupled, multiplied by the learning rate as in AdamW.
    """

    learning_rate: float = 1e-2
    decay: float = 0.8
    update_clip: float = 1.0
    momentum: float = 0.0
    factored_size: int = 128
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.decay <= 1, "decay", self.decay, "above 0 and at most 1")
        require(self.update_clip > 0, "update_clip", self.update_clip, "positive")
        require_decay_rate("momentum", self.momentum)
        require(self.factored_size > 0, "factored_size", self.factored_size, "positive")
        require_weight_decay(self.weight_decay)

    def update_rule(self, schedule: Schedule) -> optax.GradientTransformation:
        # Composed here because optax.adafactor leaves its weight decay outside the learning rate.
        parts = [
            optax.scale_by_factored_rms(decay_rate=self.decay, min_dim_size_to_factor=self.factored_size),
            optax.clip_by_block_rms(self.update_clip),
            optax.scale_by_param_block_rms(),
        ]
        if self.momentum > 0:
            parts.append(optax.ema(self.momentum, debias=False))
        parts.append(optax.add_decayed_weights(self.weight_decay, mask=decay_mask))
        parts.append(optax.scale_by_learning_rate(schedule))
        return optax.chain(*parts)

"""Optimizers by name, all built from optax."""

from train.optimizers.adafactor import Adafactor
from train.optimizers.adamw import AdamW
from train.optimizers.lion import Lion
from train.optimizers.muon import Muon
from train.optimizers.optimizer import Optimizer, decay_mask

__all__ = ["Adafactor", "AdamW", "Lion", "Muon", "Optimizer", "decay_mask"]

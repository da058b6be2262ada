"""Muon: orthogonalised momentum for kernels, AdamW for everything else."""

from dataclasses import dataclass
from typing import Any

import jax
import optax.contrib

from models.errors import require
from train.optimizers.optimizer import (
    Optimizer,
    Schedule,
    decay_mask,
    is_kernel,
    names_of,
    require_decay_rate,
    require_weight_decay,
)


@Optimizer.registry.register("muon")
@dataclass(frozen=True)
class Muon(Optimizer):
    """Muon (Jordan et al. 2024), scaled as in Liu et al. 2025 (arXiv:2502.16982, section 2.2).

    Stacked kernels are orthogonalised one layer and expert at a time, kernels to or from heads with all heads as one
    matrix. Embeddings, norms, biases and tables take Adam with Nesterov momentum and the same learning rate.

    momentum: rate of the momentum of kernels. iterations: of Newton–Schulz.
    update_size: root mean square of a kernel's update before the learning rate; 0.2 is AdamW's typical size, so that
      AdamW's learning rate and weight decay carry over.
    b1, b2, epsilon: of Adam.
    """

    learning_rate: float = 3e-3
    momentum: float = 0.95
    iterations: int = 5
    update_size: float = 0.2
    weight_decay: float = 0.1
    b1: float = 0.9
    b2: float = 0.95
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        require_decay_rate("momentum", self.momentum)
        require(self.iterations > 0, "iterations", self.iterations, "positive")
        require(self.update_size > 0, "update_size", self.update_size, "positive")
        require_weight_decay(self.weight_decay)
        require_decay_rate("b1", self.b1)
        require_decay_rate("b2", self.b2)
        require(self.epsilon > 0, "epsilon", self.epsilon, "positive")

    def update_rule(self, schedule: Schedule) -> optax.GradientTransformation:
        return optax.contrib.muon(
            schedule,
            ns_steps=self.iterations,
            beta=self.momentum,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            weight_decay_mask=decay_mask,
            adam_b1=self.b1,
            adam_b2=self.b2,
            muon_weight_dimension_numbers=matrices,
            consistent_rms=self.update_size,
        )


def matrices(parameters: Any) -> Any:
    """Which axes of each kernel form its matrix, for optax; None for parameters that are not kernels.

    Decided by name, as the decoder names them: below "units" the first axis stacks layers, and below "experts" the next
    one experts; of the rest, the first is the input (for "output", which merges heads, all but the last) and the others
    are the output.
    """

    def axes(path: tuple[Any, ...], parameter: Any) -> optax.contrib.MuonDimensionNumbers | None:
        if not is_kernel(path, parameter):
            return None
        names = names_of(path)
        matrix = tuple(range(("units" in names) + ("experts" in names), parameter.ndim))
        inputs = len(matrix) - 1 if "output" in names else 1
        return optax.contrib.MuonDimensionNumbers(matrix[:inputs], matrix[inputs:])

    return jax.tree_util.tree_map_with_path(axes, parameters)

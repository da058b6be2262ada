"""What every optimizer shares: a peak learning rate, clipping, and where weight decay belongs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from models.errors import require
from models.registry import Registry

Schedule = Callable[[Any], Any]


@dataclass(frozen=True)
class Optimizer:
    """The base of the family: clipping by the global norm, then the alternative's own update.

    learning_rate: the peak that a schedule rises to and falls from.
    clip: largest global L2 norm of the gradient over all parameters; 0 leaves gradients as they are.
    """

    registry: ClassVar[Registry] = Registry("optimizer.name")
    name: ClassVar[str]

    learning_rate: float = 3e-3
    clip: float = 1.0

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "positive")
        require(self.clip >= 0, "clip", self.clip, "a gradient norm, or 0 for no clipping")

    def build(self, schedule: Schedule) -> optax.GradientTransformation:
        """Gradients to parameter updates, which are added to the parameters.

        `schedule` maps the step (int32, from 0) to the learning rate, float32; it usually peaks at `learning_rate`.
        The state's structure does not depend on `clip`.
        """
        clip = optax.stateless(self._clipped) if self.clip > 0 else optax.identity()
        return optax.chain(clip, self.update_rule(schedule))

    def _clipped(self, gradient: Any, _parameters: Any) -> Any:
        # One factor for all, which fuses into what follows; optax's own clipping divides every number first.
        factor = self.clip / jnp.maximum(optax.global_norm(gradient), self.clip)
        return jax.tree.map(lambda g: g * factor, gradient)

    def update_rule(self, schedule: Schedule) -> optax.GradientTransformation:
        """The alternative's transformation of clipped gradients, with its weight decay and learning rate."""
        raise NotImplementedError


def updates_taken(state: Any) -> Any:
    """How many updates an optimizer's state has counted, int32: where its schedule stands. Skipped steps are none."""
    return optax.tree_utils.tree_get_all_with_path(state, "count")[0][1]


def names_of(path: tuple[Any, ...]) -> tuple[str, ...]:
    """The names that lead to a parameter of a nested dict, from its key path, boxed in metadata or not."""
    return tuple(str(entry.key) for entry in path if isinstance(entry, jax.tree_util.DictKey))


def is_kernel(path: tuple[Any, ...], parameter: Any) -> bool:
    """Whether a parameter is a matrix between activations, decided by name.

    Shape alone cannot tell: scanning over layers stacks norm scales [width] into [layers, width].
    """
    return names_of(path)[-1:] == ("kernel",) and getattr(parameter, "ndim", 2) >= 2


def decay_mask(parameters: Any) -> Any:
    """Tree of bool, true where weight decay belongs: kernels; never norms, biases, embeddings, tables or slopes."""
    return jax.tree_util.tree_map_with_path(is_kernel, parameters)


def require_decay_rate(field: str, value: float) -> None:
    """Refuses a moving average's rate outside [0, 1)."""
    require(0 <= value < 1, field, value, "at least 0 and below 1")


def require_weight_decay(value: float) -> None:
    """Refuses a negative weight decay."""
    require(value >= 0, "weight_decay", value, "0 or positive")

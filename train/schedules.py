"""The learning rate over a run: a linear warm-up, then one of several declines."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from models.errors import require
from models.registry import Registry

Array = jax.Array


@dataclass(frozen=True)
class Schedule:
    """The base of the family: a warm-up over the first `warmup` steps.

    Step 0 already learns, at peak / warmup; step warmup - 1 is the first at the peak.
    """

    registry: ClassVar[Registry] = Registry("schedule.name")
    name: ClassVar[str]

    warmup: int = 100

    def __post_init__(self) -> None:
        require(self.warmup >= 0, "warmup", self.warmup, "0 or a number of steps")

    def build(self, peak: float, steps: int) -> Callable[[Any], Array]:
        """The schedule of a run of `steps` steps: step (int or int32 array) to learning rate, float32, under jit too.

        Past the last step the rate stays where the run ended. Raises InvalidInput unless `warmup` < `steps`.
        """
        require(self.warmup < steps, "schedule.warmup", self.warmup, f"below the run's {steps} steps")

        def rate(step: Any) -> Array:
            step = jnp.asarray(step, jnp.float32)
            warm = jnp.minimum((step + 1) / max(self.warmup, 1), 1.0)
            progress = jnp.clip((step - self.warmup) / (steps - self.warmup), 0.0, 1.0)
            return jnp.float32(peak) * warm * self.decline(progress)

        return rate

    def decline(self, progress: Array) -> Array:
        """The share of the peak at `progress` of what follows the warm-up, from 0 to 1; float32."""
        raise NotImplementedError


def _require_final(value: float) -> None:
    require(0 <= value <= 1, "final", value, "a share of the peak, from 0 to 1")


@Schedule.registry.register("cosine")
@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from the peak to `final` of it (Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts)."""

    final: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_final(self.final)

    def decline(self, progress: Array) -> Array:
        return self.final + (1 - self.final) * 0.5 * (1 + jnp.cos(jnp.pi * progress))


@Schedule.registry.register("linear")
@dataclass(frozen=True)
class Linear(Schedule):
    """A straight line from the peak to `final` of it."""

    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_final(self.final)

    def decline(self, progress: Array) -> Array:
        return 1 - (1 - self.final) * progress


@Schedule.registry.register("wsd")
@dataclass(frozen=True)
class WarmupStableDecay(Schedule):
    """The peak, then a straight line to `final` of it over the last `decay` share of what follows the warm-up.

    Warmup-stable-decay (Hu et al. 2024, arXiv:2404.06395) with the linear cooldown of Hägele et al. 2024
    (arXiv:2405.18392).
    """

    decay: float = 0.2
    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.decay <= 1, "decay", self.decay, "a share of the run, above 0 and at most 1")
        _require_final(self.final)

    def decline(self, progress: Array) -> Array:
        return 1 - (1 - self.final) * jnp.maximum(progress - (1 - self.decay), 0.0) / self.decay


@Schedule.registry.register("constant")
@dataclass(frozen=True)
class Constant(Schedule):
    """The peak throughout."""

    def decline(self, progress: Array) -> Array:
        return jnp.ones_like(progress)

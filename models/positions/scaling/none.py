"""RoPE as it is."""

from dataclasses import dataclass

from models.positions.scaling.rule import Scaling


@Scaling.registry.register("none")
@dataclass(frozen=True)
class NoScaling(Scaling):
    """Leaves the frequencies alone."""

"""No positional information at all: order comes from the causal mask alone (NoPE)."""

from dataclasses import dataclass

from models.positions.scheme import PositionScheme


@PositionScheme.registry.register("none")
@dataclass(frozen=True)
class NoPosition(PositionScheme):
    """Leaves every hook an identity. Source: Kazemnejad et al. (2023), "The Impact of Positional Encoding on Length
    Generalization in Transformers"."""

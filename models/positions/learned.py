"""A learned vector for each position, added to the embeddings."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from models.errors import invalid, require
from models.positions.scheme import Array, ParameterSpec, PositionScheme


@PositionScheme.registry.register("learned")
@dataclass(frozen=True)
class Learned(PositionScheme):
    """Adds row p of a learned table; nothing is defined at or beyond the table's length.

    length: rows of the table, in tokens; None stands for the length trained at, to be filled in before use.
    """

    takes: ClassVar[str] = "whole positions"

    length: int | None = None

    def __post_init__(self):
        require(self.length is None or self.length >= 1, "length", self.length, "at least 1")

    def maximum_length(self) -> int | None:
        return self.length

    def embedding_parameters(self, width: int) -> dict[str, ParameterSpec]:
        """The table [length, width]. Raises InvalidInput while `length` is None."""
        if self.length is None:
            raise invalid("position.length", None, "a number of positions")
        return {"table": ParameterSpec((self.length, width), jax.nn.initializers.normal(0.02), (None, "embed"))}

    def embed(self, parameters: dict[str, Array], position_BxL: Array, width: int) -> Array:
        """float32 [B or 1, L, width]. Positions outside the table give NaN: plain indexing would clamp to its last row
        and return wrong numbers without an error."""
        table = parameters["table"].astype(jnp.float32)
        # Negative indices count from the end even in fill mode, so they are sent past the end.
        row_BxL = jnp.where(position_BxL < 0, table.shape[0], position_BxL)
        return jnp.take(table, row_BxL, axis=0, mode="fill", fill_value=jnp.nan)

"""What a mixer is: the part of a layer through which tokens learn of each other, and what it keeps between calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import flax.linen as nn

from models.registry import Registry

if TYPE_CHECKING:
    from models.config import ModelConfig


@dataclass(frozen=True)
class Mixer:
    """Base of the family; a field `mixer` in a configuration names an alternative, for all layers or in the pattern.

    weighs_keys: whether each query has weights over keys that sum to at most 1, whose entropy can be asked for.
    """

    registry: ClassVar[Registry] = Registry("mixer.name")
    name: ClassVar[str]
    weighs_keys: ClassVar[bool] = True

    def check(self, config: ModelConfig, index: int) -> None:
        """Raises InvalidInput where layer `index` has sizes, positions, a span or a temperature it cannot work with."""
        raise NotImplementedError

    def module(self, config: ModelConfig, index: int) -> nn.Module:
        """The module of layer `index`, named "attention" in the layer that makes it.

        Called with x [B, L, D], the tokens, and None three times or what this layer keeps (see `empty`), the tokens in
        the slots of the cache with these, and the first slot of these; returns [B, L, D] and what the layer keeps now.
        """
        raise NotImplementedError

    def empty(self, config: ModelConfig, index: int, leading: tuple[int, ...], batch: int, capacity: int) -> Any:
        """What layer `index` keeps of texts of up to `capacity` tokens before their first, as a pytree of arrays.

        leading: axes in front of all its arrays, of layers that are scanned over.
        """
        raise NotImplementedError

    def weights(self, config: ModelConfig) -> int:
        """How many numbers the matrices of one layer hold that every token is multiplied by."""
        raise NotImplementedError

    def mixing_flops(self, config: ModelConfig, keys: float) -> float:
        """Floating-point operations per token, forward, of one layer's products between tokens, for queries that see
        `keys` keys on average."""
        raise NotImplementedError

"""What a norm placement decides."""

from collections.abc import Callable

import jax

from models.registry import Registry

Array = jax.Array
Function = Callable[[Array], Array]

PLACEMENTS: Registry[type["Placement"]] = Registry("norm.placement")


class Placement:
    """A family of alternatives without fields, so classes and not instances are used.

    final_norm: whether the stack ends in a norm of its own.
    """

    final_norm: bool

    @staticmethod
    def residual(x: Array, sublayer: Function, norm: Callable[[str], Function]) -> Array:
        """The residual stream after `sublayer`. `norm(part)` makes the norm module for a part of this sublayer."""
        raise NotImplementedError

"""Any function of the distance as a bias of the logits: fixed or learned, written by the user."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp

from models.errors import invalid, require
from models.positions.scheme import Array, ParameterSpec, PositionScheme, Tile
from models.registry import Registry

FUNCTIONS: Registry[Callable[..., Array]] = Registry("function")


def distance_function(
    name: str, layer_parameters: Callable[[int], dict[str, ParameterSpec]] | None = None
) -> Callable[[Any], Any]:
    """A decorator that enters a function of the distance under `name`.

    layer_parameters: heads -> specs of what the function learns in each layer; None where it learns nothing.
    """

    def enter(function: Any) -> Any:
        if layer_parameters is not None:
            function.layer_parameters = layer_parameters
        return FUNCTIONS.register(name)(function)

    return enter


def resolve(function: str) -> Callable[..., Array]:
    """The function registered under this name or found at this path, "package.module:name".

    Raises InvalidInput where there is none, or where what is there cannot be called.
    """
    if function in FUNCTIONS:
        return FUNCTIONS[function]
    allowed = f"one of {', '.join(FUNCTIONS)}, or the path package.module:name of a function"
    module, _, name = function.partition(":")
    require(bool(module and name), "function", function, allowed)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, TypeError) as error:
        raise invalid("function", function, f"{allowed} ({error})") from None
    require(callable(found), "function", function, f"{allowed}; there is a {type(found).__name__}")
    return found


@distance_function("logarithm")
def logarithm(distance: Array, heads: int) -> Array:
    """`-ln(1 + Δ)`, the same in every head."""
    return jnp.broadcast_to(-jnp.log1p(distance), (heads, *distance.shape))


@PositionScheme.registry.register("distance")
@dataclass(frozen=True)
class DistanceFunction(PositionScheme):
    """Adds `f(Δ)` to the logits, where `function` names f: a registered name, or the path "package.module:name".

    f is called as `f(distance, heads, **learned)` with distances float32 [...] of at least 0 (keys that nobody sees
    count as 0) and returns a bias [heads, ...]. It may only do what jax can trace, and its gradient must be finite from
    0 on. It learns what `f.layer_parameters(heads)` declares, if it has that attribute. For example, in `my/decay.py`:

        def specs(heads):
            return {"range": ParameterSpec((heads,), jax.nn.initializers.constant(4.0), ("heads",))}

        @distance_function("my_decay", layer_parameters=specs)
        def decay(distance, heads, range):
            return -distance / (1 + jnp.exp(range[:, None, None, None]))

    with `function="my.decay:decay"`, or `function="my_decay"` where `my.decay` has been imported. What identifies a run
    is this name and not the code behind it: give a changed function a new name.
    Beyond the training length: whatever f is there.
    """

    takes: ClassVar[str] = "distances"

    function: str = "logarithm"

    def __post_init__(self):
        resolve(self.function)

    def layer_parameters(self, heads: int, head_size: int) -> dict[str, ParameterSpec]:
        """What the function declares, nothing if it declares nothing."""
        declare = getattr(resolve(self.function), "layer_parameters", None)
        return {} if declare is None else declare(heads)

    def change_logits(self, parameters: dict[str, Array], logits_BxHxQxT: Array, tile: Tile) -> Array:
        """The logits plus the function of the distance, float32 [B, H, Q, T].

        Raises InvalidInput where the function returns another shape than [heads, ...].
        """
        heads = logits_BxHxQxT.shape[1]
        distance_BxQxT = jnp.maximum(self.distance(tile), 0).astype(jnp.float32)
        bias_HxBxQxT = resolve(self.function)(distance_BxQxT, heads, **parameters)
        got, wanted = jnp.shape(bias_HxBxQxT), (heads, *distance_BxQxT.shape)
        require(got == wanted, "function", self.function, f"a function that returns shape {wanted} here, and not {got}")
        return logits_BxHxQxT + jnp.moveaxis(bias_HxBxQxT, 0, 1).astype(jnp.float32)

"""Rotary frequencies from the `rope_parameters` dictionary of a Hugging Face model configuration."""

from collections.abc import Callable
from typing import Any

import numpy as np

from models.errors import InvalidInput, require_choice
from models.positions.scaling import DynamicNTK, Linear, NoScaling, NTKAware, Scaling, YaRN


def _default(parameters: dict[str, Any], maximum: int, length: int | None) -> Scaling:
    return NoScaling()


def _linear(parameters: dict[str, Any], maximum: int, length: int | None) -> Scaling:
    return Linear(factor=parameters["factor"])


def _dynamic(parameters: dict[str, Any], maximum: int, length: int | None) -> Scaling:
    rule = DynamicNTK(factor=parameters["factor"], original_length=maximum)
    return NTKAware(factor=float(rule.stretch(maximum if length is None else length)))


def _yarn(parameters: dict[str, Any], maximum: int, length: int | None) -> Scaling:
    names = ["beta_fast", "beta_slow", "truncate", "attention_factor"]
    # Hugging Face heeds the two weights only as a pair, and takes 0 for absent.
    if parameters.get("mscale") and parameters.get("mscale_all_dim"):
        names += ["mscale", "mscale_all_dim"]
    return YaRN(
        factor=parameters["factor"],
        original_length=parameters.get("original_max_position_embeddings", maximum),
        **{name: parameters[name] for name in names if parameters.get(name) is not None},
    )


ROPE_TYPES: dict[str, Callable[[dict[str, Any], int, int | None], Scaling]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "yarn": _yarn,
}


def frequencies_from_hugging_face(
    parameters: dict[str, Any], head_dim: int, max_position_embeddings: int, sequence_length: int | None = None
) -> tuple[np.ndarray, float]:
    """Inverse frequencies, float64 [rotary width / 2] in radians per token, and the attention factor.

    parameters: `rope_type`, `rope_theta`, and what the type needs; `partial_rotary_factor` shortens the rotary width
      to `int(head_dim · factor)`. sequence_length: the current length in tokens, which only "dynamic" looks at; None
      stands for `max_position_embeddings`.
    Raises InvalidInput on a `rope_type` that is not one of ROPE_TYPES, on a missing parameter, or on what the scaling
    rule refuses.
    """
    rope_type: Any = parameters.get("rope_type")
    require_choice("rope_type", rope_type, ROPE_TYPES)
    width = int(head_dim * parameters.get("partial_rotary_factor", 1.0))
    try:
        base = parameters["rope_theta"]
        rule = ROPE_TYPES[rope_type](parameters, max_position_embeddings, sequence_length)
    except KeyError as missing:
        raise InvalidInput(f"rope_parameters of rope_type {rope_type!r} have no {missing}") from None
    return rule.frequencies(base, width), rule.amplitude()

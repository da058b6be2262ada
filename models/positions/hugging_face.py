"""Rotary positions from and to the `rope_parameters` dictionary of a Hugging Face model configuration."""

from collections.abc import Callable
from typing import Any

import numpy as np

from models.errors import InvalidInput, require, require_choice
from models.positions.index import Identity
from models.positions.rotary import Rotary
from models.positions.scaling import (
    DynamicNTK,
    FixedNTK,
    Linear,
    Llama3,
    LongRoPE,
    NoScaling,
    NTKAware,
    NTKByParts,
    Scaling,
    YaRN,
)
from models.positions.scaling.rule import known_length, plain_frequencies

Parameters = dict[str, Any]


def _given(parameters: Parameters, *names: str) -> Parameters:
    """Those of the named parameters that are there."""
    return {name: parameters[name] for name in names if name in parameters}


def _original_length(parameters: Parameters, maximum: int) -> int:
    return parameters.get("original_max_position_embeddings") or maximum


def _default(parameters: Parameters, maximum: int) -> Scaling:
    return NoScaling()


def _linear(parameters: Parameters, maximum: int) -> Scaling:
    return Linear(factor=parameters["factor"])


def _proportional(parameters: Parameters, maximum: int) -> Scaling:
    return Linear(factor=parameters.get("factor", 1.0))


def _dynamic(parameters: Parameters, maximum: int) -> Scaling:
    return DynamicNTK(factor=parameters["factor"], original_length=maximum)


def _yarn(parameters: Parameters, maximum: int) -> Scaling:
    original = _original_length(parameters, maximum)
    factor = parameters["factor"]
    # Of the weights only a pair counts, and there as at the ends of the ramp, 0 stands for absent.
    weights = _given(parameters, "mscale", "mscale_all_dim")
    return YaRN(
        factor=maximum / original if factor is None else factor,
        original_length=original,
        beta_fast=parameters.get("beta_fast") or 32.0,
        beta_slow=parameters.get("beta_slow") or 1.0,
        truncate=bool(parameters.get("truncate", True)),
        **(weights if len(weights) == 2 and all(weights.values()) else {}),
        **_given(parameters, "attention_factor"),
    )


def _longrope(parameters: Parameters, maximum: int) -> Scaling:
    original = _original_length(parameters, maximum)
    factor = parameters.get("factor")
    return LongRoPE(
        factor=max(maximum / original, 1.0) if factor is None else factor,
        original_length=original,
        short_factor=tuple(parameters["short_factor"]),
        long_factor=tuple(parameters["long_factor"]),
        **_given(parameters, "attention_factor"),
    )


def _llama3(parameters: Parameters, maximum: int) -> Scaling:
    return Llama3(
        factor=parameters["factor"],
        original_length=_original_length(parameters, maximum),
        low_freq_factor=parameters["low_freq_factor"],
        high_freq_factor=parameters["high_freq_factor"],
    )


ROPE_TYPES: dict[str, Callable[[Parameters, int], Scaling]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "yarn": _yarn,
    "longrope": _longrope,
    "llama3": _llama3,
    "proportional": _proportional,
}


# Parameters of which None is not what their absence is, by type.
NONE_MEANS = {"yarn": ("factor", "truncate")}


def rotary_from_hugging_face(parameters: Parameters, head_dim: int, max_position_embeddings: int) -> Rotary:
    """The rotary positions of a model whose configuration has these `rope_parameters`, in the half-split layout.

    parameters: `rope_type` (or `type`; "default" where it has neither), `rope_theta`, and what the type needs, read as
      transformers reads it. `partial_rotary_factor` is the share. "dynamic" refers to `max_position_embeddings`, others
      to `original_max_position_embeddings` and only without that to the former; where "longrope" has no factor, or
      "yarn" None, it is their ratio. Of "yarn", `mscale` and `mscale_all_dim` count only as a pair, and 0 is absent.
      So is None elsewhere, but for yarn's `truncate`, where it is false.
    Under "dynamic" and "longrope" every query has its own length here (see the scaling rules), where transformers takes
    one for all tokens of a call and leaves the keys in its cache as earlier calls turned them.
    Raises InvalidInput on a `rope_type` that is not one of ROPE_TYPES, on a missing parameter, or on what the scheme
    refuses (a factor below 1, half a pair).
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    rope_type: Any = given.get("rope_type", given.get("type", "default"))
    require_choice("rope_type", rope_type, ROPE_TYPES)
    meant = {name: parameters[name] for name in NONE_MEANS.get(rope_type, ()) if name in parameters}
    parameters = given | meant
    try:
        scheme = Rotary(
            base=parameters["rope_theta"],
            scaling=ROPE_TYPES[rope_type](parameters, max_position_embeddings),
            share=parameters.get("partial_rotary_factor", 1.0),
            share_rule="proportional" if rope_type == "proportional" else "partial",
        )
    except KeyError as missing:
        raise InvalidInput(f"rope_parameters of rope_type {rope_type!r} have no {missing}") from None
    scheme.check(head_dim)
    return scheme


def frequencies_from_hugging_face(
    parameters: Parameters, head_dim: int, max_position_embeddings: int, sequence_length: int | None = None
) -> tuple[np.ndarray, float]:
    """Inverse frequencies, float64 [rotary width / 2] in radians per token, and the attention factor.

    The rotary width is `head_dim`, or `int(head_dim · partial_rotary_factor)`; under "proportional" it is `head_dim`,
    and the last frequencies are 0. sequence_length: the current length in tokens, which only "dynamic" and "longrope"
    look at; None is one within the original length. Parameters and errors are those of `rotary_from_hugging_face`.
    """
    scheme = rotary_from_hugging_face(parameters, head_dim, max_position_embeddings)
    return scheme.frequencies(head_dim, sequence_length), scheme.scaling.amplitude()


def rotary_to_hugging_face(scheme: Rotary, head_dim: int) -> Parameters:
    """`rope_parameters` under which `rotary_from_hugging_face` and transformers have the frequencies and the attention
    factor of `scheme`, at heads of size `head_dim`; of JSON's types.

    Rules that have no `rope_type` are written as what equals them: a changed base, or lists of "longrope" that are the
    same at any length. "dynamic" names no original length: the model's `max_position_embeddings` must be it. Layout and
    dtype of angles have no place there: of an interleaved scheme, the columns of the projections have to be permuted.
    Raises InvalidInput where a scheme cannot be written: it has an index transform, an original length is None,
    LongRoPE leaves tokens unscaled, or a scaling with a proportional share is more than a base and a factor.
    """
    scheme.check(head_dim)
    index = scheme.index
    allowed = "identity: rope_parameters of Hugging Face have no place for a change of positions or distances"
    require(isinstance(index, Identity), "position.index.name", index.name, allowed)
    proportional = scheme.share_rule == "proportional" and scheme.share < 1
    parameters: Parameters = {
        "rope_theta": scheme.base,
        **_written(scheme.scaling, scheme.base, scheme.width(head_dim)),
    }
    if proportional:
        if parameters["rope_type"] not in ("default", "linear"):
            name = scheme.scaling.name
            raise InvalidInput(
                f"scaling.name = {name!r} with share_rule = 'proportional' has no rope_type of Hugging Face"
            )
        parameters["rope_type"] = "proportional"
    if scheme.share < 1:
        parameters["partial_rotary_factor"] = scheme.share
    return parameters


def _written(rule: Scaling, base: float, width: int) -> Parameters:
    """`rope_type` and its parameters; `rope_theta` too where the rule changes it."""
    match rule:
        case NoScaling():
            return {"rope_type": "default"}
        case Linear():
            return {"rope_type": "linear", "factor": rule.factor}
        case NTKAware():
            return {"rope_type": "default", "rope_theta": base * rule.factor ** (width / max(width - 2, 1))}
        case FixedNTK():
            return {"rope_type": "linear", "rope_theta": base * rule.factor, "factor": rule.factor ** (2 / width)}
        case DynamicNTK():
            return {"rope_type": "dynamic", "factor": rule.factor}
        case Llama3():
            return _llama3_written(rule, rule.low_freq_factor, rule.high_freq_factor)
        case NTKByParts():
            return _llama3_written(rule, rule.alpha, rule.beta)
        case YaRN(ramp="code"):
            names = ("factor", "beta_fast", "beta_slow", "truncate", "mscale", "mscale_all_dim", "attention_factor")
            given = {name: getattr(rule, name) for name in names if getattr(rule, name) is not None}
            return {"rope_type": "yarn", "original_max_position_embeddings": known_length(rule.original_length)} | given
        case LongRoPE():
            kept = rule.unscaled_tokens
            require(kept == 0, "scaling.unscaled_tokens", kept, "0: Hugging Face's longrope has no such tokens")
            short, long = (np.broadcast_to(one, width // 2).tolist() for one in (rule.short_factor, rule.long_factor))
            original = {"original_max_position_embeddings": known_length(rule.original_length)}
            return {"factor": rule.factor} | original | _lists_written(rule, short, long)
    if rule.depends_on_length:
        raise InvalidInput(f"scaling.name = {rule.name!r} has no rope_type of Hugging Face")
    divisors = (plain_frequencies(base, width) / rule.frequencies(base, width)).tolist()
    return _lists_written(rule, divisors, divisors)


def _llama3_written(rule: Llama3 | NTKByParts, low: float, high: float) -> Parameters:
    return {
        "rope_type": "llama3",
        "factor": rule.factor,
        "original_max_position_embeddings": known_length(rule.original_length),
        "low_freq_factor": low,
        "high_freq_factor": high,
    }


def _lists_written(rule: Scaling, short: list[float], long: list[float]) -> Parameters:
    return {
        "rope_type": "longrope",
        "short_factor": short,
        "long_factor": long,
        "attention_factor": rule.amplitude(),
    }

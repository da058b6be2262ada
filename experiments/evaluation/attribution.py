"""What breaks beyond the training length: one thing at a time put right, the same tokens scored again.

Distances kept within training, attention kept as sharp as in training, the first tokens kept in sight, no token at the
start of a window: what a repair gives back is what was broken. Nothing is trained again. An ablation that a model
cannot take is told with the reason.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from experiments.evaluation.config import EvaluationConfig
from experiments.evaluation.statistics import bits_per_byte, interval
from experiments.evaluation.suite import ModelAt, Text, measure
from experiments.evaluation.verdict import verdict
from models.attention.visibility import Full, Sinks, Sliding, Visibility
from models.config import ModelConfig
from models.errors import InvalidInput, require
from models.positions import PositionScheme
from models.positions.index import Clipped, Identity, Index, Reindexed
from models.positions.temperature import LogN, NoTemperature, Temperature
from train.configuration import to_plain

SINKS = 4  # first tokens that stay visible (Xiao et al. 2024, StreamingLLM, section 4: four suffice)

# Dotted path of a field of the model to what stands there in every layer.
Parts = dict[str, Index | Temperature | Visibility]
AS_IT_IS, AT_TRAINING_LENGTH = "as_it_is", "training_length"
PROTOCOLS = ("non_overlapping", "sliding")


def ablations(model: ModelConfig, trained: int) -> dict[str, Parts]:
    """What each ablation changes in a model trained at `trained` tokens, by its name.

    clipped: no distance beyond the longest trained, `trained` - 1. log_n: scores of queries at m multiplied by
    max(1, ln(m + 1) / ln trained). clipped_log_n: both. window: the latest `trained` tokens alone. sinks: as many keys,
    the first SINKS of the text among them, at their places in such a cache where the scheme takes distances.
    """
    clipped: Parts = {"position.index": Clipped(window=max(1, trained - 1))}
    log_n: Parts = {"temperature": LogN(original_length=max(2, trained))}
    window = max(1, trained - SINKS)
    sinks: Parts = {"span": Sinks(window=window, sinks=SINKS)}
    if _take_distances(model):
        sinks["position.index"] = Reindexed(window=window, sinks=SINKS)
    return {
        "clipped": clipped,
        "log_n": log_n,
        "clipped_log_n": clipped | log_n,
        "window": {"span": Sliding(window=trained)},
        "sinks": sinks,
    }


def _take_distances(model: ModelConfig) -> bool:
    takes = [scheme.takes for scheme in model.schemes() if scheme.takes != "none"]
    return bool(takes) and all(one.endswith("distances") for one in takes)


def apply(model: ModelConfig, parts: Parts) -> ModelConfig:
    """The model with `parts` in every layer. Raises InvalidInput where it cannot take them, or has such a thing."""
    for path, part in parts.items():
        model = _APPLY[path](model, part)
    return model


def _with_index(model: ModelConfig, index: Index) -> ModelConfig:
    """Schemes that positions say nothing to stay as they are, unless they are all there is."""
    taking = [scheme for scheme in model.schemes() if scheme.takes != "none"]
    for scheme in taking:
        if not isinstance(scheme.index, Identity):
            raise InvalidInput(f"position.index.name = {scheme.index.name!r} changes positions already")
    if not taking:
        dataclasses.replace(model.schemes()[0], index=index).check_index()

    def change(scheme: PositionScheme) -> PositionScheme:
        return scheme if scheme.takes == "none" else dataclasses.replace(scheme, index=index)

    return _in_every_layer(model, "position", change)


def _with_temperature(model: ModelConfig, temperature: Temperature) -> ModelConfig:
    present = [model.layer_temperature(i) for i in range(len(model.pattern))]
    for one in present:
        if not isinstance(one, NoTemperature):
            raise InvalidInput(f"temperature.name = {one.name!r} changes the scores already")
    return _in_every_layer(model, "temperature", lambda _: temperature)


def _with_span(model: ModelConfig, span: Visibility) -> ModelConfig:
    """Layers of a narrower span keep it."""
    present = [model.layer_span(i) for i in range(len(model.pattern))]
    if not any(isinstance(one, Full) for one in present):
        raise InvalidInput(f"span.name = {present[0].name!r} hides old tokens already")
    return _in_every_layer(model, "span", lambda one: span if isinstance(one, Full) else one)


_APPLY: dict[str, Callable[[ModelConfig, Any], ModelConfig]] = {
    "position.index": _with_index,
    "temperature": _with_temperature,
    "span": _with_span,
}


def _in_every_layer(model: ModelConfig, field: str, change: Callable[[Any], Any]) -> ModelConfig:
    def changed(value: Any) -> Any:
        return None if value is None else change(value)

    layers = [dataclasses.replace(layer, **{field: changed(getattr(layer, field))}) for layer in model.pattern]
    return model.replace(**{field: change(getattr(model, field)), "pattern": tuple(layers)})


def attribute(model_at: ModelAt, parameters: Any, text: Text, trained: int, config: EvaluationConfig) -> dict[str, Any]:
    """The ablations at each of `config.attribution` tokens of a model trained at `trained`, as plain JSON values.

    Of each length: rows, of both protocols under each ablation, as `measure` gives them, with their `difference` from
    the model as it is; effects, differences of two rows: what is lost since the training length, what the loss of the
    first tokens costs a window, what non-overlapping windows cost; and a verdict in sentences. Differences are bits per
    byte on the same tokens, below 0 is better, with 95 % percentile bootstrap intervals over documents, paired: every
    resample is one of the differences. Raises InvalidInput where a length is not beyond training.
    """
    for length in config.attribution:
        require(length > trained, "evaluation.attribution", length, f"more than the {trained} tokens of training")
    reference = _both_protocols(AT_TRAINING_LENGTH, {}, model_at, parameters, text, trained, config)
    bytes_D = np.array([sizes.sum(dtype=np.int64) for sizes in text.byte_lengths])

    def difference(one: "_Scored", other: "_Scored") -> dict[str, float | None]:
        return _difference(one, other, bytes_D, config.resamples)

    found = []
    for length in sorted(set(config.attribution)):
        scored = _both_protocols(AS_IT_IS, {}, model_at, parameters, text, length, config)
        for name, parts in ablations(model_at(length), trained).items():
            scored += _both_protocols(name, parts, model_at, parameters, text, length, config)
        by_name = {(one.row["ablation"], one.row["protocol"]): one for one in scored + reference}
        rows = [one.row | difference(one, by_name[AS_IT_IS, protocol]) for (_, protocol), one in by_name.items()]
        effects: list[dict[str, Any]] = []
        for effect, more, less in (("lost", AS_IT_IS, AT_TRAINING_LENGTH), ("first_tokens", "window", "sinks")):
            for protocol in PROTOCOLS:
                values = difference(by_name[more, protocol], by_name[less, protocol])
                effects.append({"effect": effect, "protocol": protocol, **values})
        cold, warm = (by_name[AS_IT_IS, protocol] for protocol in PROTOCOLS)
        effects.append({"effect": "windowing", "protocol": None, **difference(cold, warm)})
        entry = {"length": length, "rows": rows, "effects": effects}
        found.append(entry | {"verdict": verdict(rows, effects, trained, length)})
    return {"trained": trained, "documents": len(text.tokens), "lengths": found}


class _Scored(NamedTuple):
    """A row, and the nats of each document, float64 [documents], where it could be measured."""

    row: dict[str, Any]
    nats_D: np.ndarray | None


def _both_protocols(
    name: str, parts: Parts, model_at: ModelAt, parameters: Any, text: Text, length: int, config: EvaluationConfig
) -> list[_Scored]:
    named = {"ablation": name, "override": {path: to_plain(part) for path, part in parts.items()}}
    both = []
    for protocol, stride in zip(PROTOCOLS, (length, config.stride(length)), strict=True):
        try:
            model = apply(model_at(length), parts)
        except InvalidInput as error:
            reason = {"status": "does not apply", "reason": str(error)}
            both.append(_Scored(named | {"length": length, "protocol": protocol, "stride": stride} | reason, None))
            continue
        row, scored = measure(lambda length: model, parameters, text, length, protocol, stride, config)  # noqa: B023
        nats_D = None if scored is None else np.array([nats.sum(dtype=np.float64) for nats in scored.nats])
        both.append(_Scored(named | row, nats_D))
    return both


def _difference(one: _Scored, other: _Scored, bytes_D: np.ndarray, resamples: int) -> dict[str, float | None]:
    """Bits per byte of `one` less those of `other`, and the paired interval; None where one is missing."""
    if one.nats_D is None or other.nats_D is None:
        return {"difference": None, "difference_low": None, "difference_high": None}
    more_D = one.nats_D - other.nats_D
    low, high = interval(more_D, bytes_D, resamples)
    value = bits_per_byte(float(more_D.sum()), int(bytes_D.sum()))
    return {"difference": value, "difference_low": low, "difference_high": high}

"""Evaluating the checkpoint of a run folder: parameters alone, under any positional override, at any length."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from experiments.evaluation.attribution import attribute
from experiments.evaluation.config import EvaluationConfig
from experiments.evaluation.entropy import entropy_by_position
from experiments.evaluation.extension import extended, takes_factor
from experiments.evaluation.score import on_all_devices
from experiments.evaluation.suite import Text, choose_text, evaluate_series
from models.accounting import parameter_count
from models.config import ModelConfig
from models.errors import InvalidInput
from models.positions.none import NoPosition
from models.positions.rotary import Rotary
from models.positions.scaling import NoScaling
from models.positions.temperature import DroPETemperature, NoTemperature
from models.transformer import init_parameters, regroup_parameters, unroll_parameters
from train.checkpoints import restore_parameters
from train.config import RunConfig, fill_lengths
from train.configuration import to_plain
from train.data import prepare
from train.files import write_json
from train.loop import PROVENANCE
from train.provenance import hash_of, own_commit
from train.sharding import path_name
from train.tokenizers import load_tokenizer

LONGEST_NAME = 100
# Part of every result's identity; takes the next number where what is scored, or how, changes.
FORMAT = 2


class Checkpoint(NamedTuple):
    """What a run folder holds, restored for evaluation. model: as trained, with every length filled in."""

    folder: Path
    config: RunConfig
    model: ModelConfig
    parameters: Any
    step: int


def open_checkpoint(folder: Path, config: RunConfig, step: int | None = None) -> Checkpoint:
    """Restores the parameters of `step` (None: the newest). Raises InvalidInput where there is no undamaged
    checkpoint, where it was trained with another tokenizer than the folder's, or does not fit the configured model."""
    tokenizer = load_tokenizer(folder / "tokenizer")
    # The run's own word first: another tokenizer's size would be called a model that does not fit.
    _require_tokenizer(folder, tokenizer.hash, read_provenance(folder).get("tokenizer_hash", tokenizer.hash))
    model = config.filled_model(tokenizer.vocabulary_size)
    step, parameters, metadata = restore_parameters(folder / "checkpoints", step, _abstract(model))
    _require_tokenizer(folder, tokenizer.hash, metadata["tokenizer"])
    return Checkpoint(folder, config, model, parameters, step)


def read_provenance(folder: Path) -> dict[str, Any]:
    """What a run's provenance.json says; nothing where it is missing or damaged."""
    try:
        return dict(json.loads((folder / PROVENANCE).read_text()))
    except (OSError, ValueError):
        return {}


def _require_tokenizer(folder: Path, present: str, trained_with: str) -> None:
    if present != trained_with:
        raise InvalidInput(
            f"{folder / 'tokenizer'} is not the tokenizer of this checkpoint: its hash is {present[:12]}, "
            f"the checkpoint was trained with {trained_with[:12]}"
        )


def _abstract(model: ModelConfig) -> Any:
    """The model's parameters as shapes and dtypes."""
    return nn.meta.unbox(jax.eval_shape(lambda: init_parameters(model, 0)))


class Series(NamedTuple):
    """A checkpoint under one positional scheme. override: what differs from training, empty for nothing."""

    label: str
    override: dict[str, Any]
    model_at: Callable[[int], ModelConfig]


def series_of(model: ModelConfig, label: str, trained: int, evaluation: EvaluationConfig) -> list[Series]:
    """A model trained at `trained` tokens as it is, and again: where it has plain RoPE under each scaling, where it has
    no positions under DroPE's temperature, if the evaluation asks for them."""
    series = [Series(label, {}, lambda length: model)]
    rotary = any(_plain_rope(scheme) for scheme in model.schemes())
    for name in evaluation.scalings:
        if name == DroPETemperature.name:
            series += [_sharpened(model, label, trained)] if _without_positions(model) else []
        elif rotary:
            series.append(_scaled(model, label, trained, name))
    return series


def regrouped(checkpoint: Checkpoint, model: ModelConfig) -> Checkpoint:
    """The checkpoint with its layers stacked as `model` repeats them, whose pattern may have another length.

    Raises InvalidInput where layers that would share a place of that pattern hold different parameters.
    """
    trained = checkpoint.model
    if (len(model.pattern), model.layer_loop) == (len(trained.pattern), trained.layer_loop):
        return checkpoint
    parameters = regroup_parameters(trained, checkpoint.parameters, len(model.pattern))
    return checkpoint._replace(
        parameters=parameters if model.layer_loop == "scan" else unroll_parameters(model, parameters)
    )


def overridden(checkpoint: Checkpoint, label: str, changed: ModelConfig, override: dict[str, Any]) -> Series:
    """The checkpoint under a model that differs from the trained one by `override`.

    Raises InvalidInput where that model asks for parameters that the checkpoint does not hold.
    """
    model = fill_lengths(changed, checkpoint.config.train.length).replace(
        vocabulary_size=checkpoint.model.vocabulary_size
    )
    held, asked = _shapes(checkpoint.parameters), _shapes(_abstract(model))
    for name, shape in asked.items():
        if held.get(name) != shape:
            raise InvalidInput(
                f"{checkpoint.folder} cannot be read under the changed config.model: that asks for {name} of shape "
                f"{shape}, the checkpoint holds {held.get(name, 'none')}"
            )
    return Series(label, override, lambda length: model)


def _shapes(parameters: Any) -> dict[str, tuple[int, ...]]:
    return {path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(parameters)}


def _plain_rope(scheme: Any) -> bool:
    return isinstance(scheme, Rotary) and isinstance(scheme.scaling, NoScaling)


def _without_positions(model: ModelConfig) -> bool:
    """Whether positions enter nowhere, the temperature included."""
    unchanged = all(isinstance(model.layer_temperature(i), NoTemperature) for i in range(len(model.pattern)))
    return unchanged and all(isinstance(scheme, NoPosition) for scheme in model.schemes())


def _sharpened(model: ModelConfig, label: str, trained: int) -> Series:
    def model_at(length: int) -> ModelConfig:
        temperature = DroPETemperature(factor=max(1.0, length / trained))
        pattern = tuple(dataclasses.replace(layer, temperature=None) for layer in model.pattern)
        return model.replace(temperature=temperature, pattern=pattern)

    override = {"model.temperature.name": DroPETemperature.name, "model.temperature.factor": "length / training length"}
    return Series(f"{label} · temperature", override, model_at)


def _scaled(model: ModelConfig, label: str, trained: int, name: str) -> Series:
    def model_at(length: int) -> ModelConfig:
        scaling = extended(name, max(1.0, length / trained))

        def scale(scheme: Any) -> Any:
            return dataclasses.replace(scheme, scaling=scaling) if _plain_rope(scheme) else scheme

        pattern = tuple(dataclasses.replace(layer, position=scale(layer.position)) for layer in model.pattern)
        return fill_lengths(model.replace(position=scale(model.position), pattern=pattern), trained)

    factor = "length / training length" if takes_factor(name) else "each query's own length"
    override = {"model.position.scaling.name": name, "model.position.scaling.factor": factor}
    return Series(f"{label} · {name}", override, model_at)


def evaluation_file(folder: Path, label: str) -> Path:
    """Where the results of a series lie. A label that makes no file name, or too long a one, or one under which the
    results of another label lie already, is told by its hash."""
    name = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
    path = folder / "evaluation" / f"{name}.json"
    plain = re.fullmatch(r"[a-z0-9_., ]*", label.lower().replace(" · ", " "))
    if plain is None or not 0 < len(name) <= LONGEST_NAME or _series_in(path) not in (None, label):
        path = path.with_name(f"{name[:LONGEST_NAME]}-{hash_of(label)}".lstrip("-") + ".json")
    return path


def _series_in(path: Path) -> str | None:
    """The label of the results in a file; None where there are none that can be read."""
    try:
        return json.loads(path.read_text())["series"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def evaluate_checkpoint(
    checkpoint: Checkpoint, series: list[Series], evaluation: EvaluationConfig, say: Callable[[str], None]
) -> None:
    """Writes one file per series into the run folder's evaluation/; a series already measured the same way is kept.

    The attribution, where lengths for it are given, is of the first series: the others are repairs themselves. Lengths
    that are not beyond training have nothing to attribute; they are left out, and named.
    """
    trained = checkpoint.config.train.length
    beyond = _beyond(evaluation, trained)
    if beyond != evaluation:
        within = ", ".join(str(length) for length in evaluation.attribution if length not in beyond.attribution)
        say(f"not attributed {series[0].label} at {within}: not beyond the {trained} tokens of training")
    evaluation = beyond
    checkpoint = checkpoint._replace(parameters=on_all_devices(checkpoint.parameters))
    text: Text | None = None
    for one in series:
        path = evaluation_file(checkpoint.folder, one.label)
        identity = _identity(one, evaluation, checkpoint.step)
        if _measured(path, identity):
            continue
        if text is None:
            text = _text(checkpoint, evaluation)
        results = evaluate_series(one.model_at, checkpoint.parameters, text, evaluation)
        # What this machine had no room for may find it another time.
        again = any(row["status"] == "failed" and row["again"] for row in results["rows"])
        facts = {
            "series": one.label,
            "run_id": checkpoint.folder.name,
            "step": checkpoint.step,
            "seed": checkpoint.config.seed,
            "train_length": trained,
            "override": one.override,
            "text": text.hash(),
            "commit": own_commit(),
            "parameters": parameter_count(checkpoint.parameters),
            "identity": None if again else identity,
        }
        write_json(path, facts | results)
        say(f"evaluated {one.label}: " + _digest(results["rows"]))
    if evaluation.attribution:
        _attribute(checkpoint, series[0], evaluation, say)


def _beyond(evaluation: EvaluationConfig, trained: int) -> EvaluationConfig:
    """The evaluation with those lengths of its attribution that are beyond `trained` tokens."""
    return dataclasses.replace(evaluation, attribution=tuple(n for n in evaluation.attribution if n > trained))


def _attribute(checkpoint: Checkpoint, one: Series, evaluation: EvaluationConfig, say: Callable[[str], None]) -> None:
    """Adds attribution and entropy to the file of a measured series."""
    path = evaluation_file(checkpoint.folder, one.label)
    trained = checkpoint.config.train.length
    identity = _attribution_identity(one, evaluation, checkpoint.step)
    if _measured(path, identity, "attribution"):
        return
    # The documents of the table, unless a length here is longer than all of its own.
    text = _text(checkpoint, dataclasses.replace(evaluation, lengths=evaluation.lengths + evaluation.attribution))
    attribution = attribute(one.model_at, checkpoint.parameters, text, trained, evaluation)
    lengths = (trained, *evaluation.attribution)
    entropy = entropy_by_position(one.model_at, checkpoint.parameters, text, lengths, evaluation)
    content = json.loads(path.read_text())
    write_json(path, content | {"attribution": {"identity": identity} | attribution, "entropy": entropy})
    for entry in attribution["lengths"]:
        say(f"attributed {one.label} at {entry['length']}: " + " ".join(entry["verdict"]))


def all_measured(folder: Path, config: RunConfig, label: str, evaluation: EvaluationConfig) -> bool:
    """Whether the last checkpoint of a finished run was evaluated in just this way."""
    evaluation = _beyond(evaluation, config.train.length)
    model = config.filled_model(load_tokenizer(folder / "tokenizer").vocabulary_size)
    series = series_of(model, label, config.train.length, evaluation)
    steps = config.train.steps
    if evaluation.attribution:
        identity = _attribution_identity(series[0], evaluation, steps)
        if not _measured(evaluation_file(folder, series[0].label), identity, "attribution"):
            return False
    return all(_measured(evaluation_file(folder, one.label), _identity(one, evaluation, steps)) for one in series)


def _identity(series: Series, evaluation: EvaluationConfig, step: int) -> str:
    """A hash of everything that decides the numbers of a series, given the run."""
    models = [_model_or_reason(series, length) for length in evaluation.lengths]
    fields = {name: value for name, value in to_plain(evaluation).items() if name != "attribution"}
    return hash_of({"format": FORMAT, "evaluation": fields, "models": models, "step": step})


def _attribution_identity(series: Series, evaluation: EvaluationConfig, step: int) -> str:
    """The same of what stands beside them: a series keeps its numbers when an attribution is added."""
    models = [_model_or_reason(series, length) for length in evaluation.attribution]
    return hash_of({"format": FORMAT, "evaluation": to_plain(evaluation), "models": models, "step": step})


def _model_or_reason(series: Series, length: int) -> Any:
    """The model at a length, or why there is none, as the rows at that length say."""
    try:
        return to_plain(series.model_at(length))
    except InvalidInput as error:
        return str(error)


def _text(checkpoint: Checkpoint, evaluation: EvaluationConfig) -> Text:
    prepared = prepare(checkpoint.config.data, checkpoint.config.tokenizer)
    trained_with = load_tokenizer(checkpoint.folder / "tokenizer").hash
    if prepared.tokenizer.hash != trained_with:
        raise InvalidInput(
            f"{checkpoint.folder}: the corpus now gives another tokenizer ({prepared.tokenizer.hash[:12]}) than the "
            f"one trained with ({trained_with[:12]}); the text or the tokenizer library changed"
        )
    began = read_provenance(checkpoint.folder).get("held_out_hash")
    if began is not None and began != prepared.held_out.hash:
        raise InvalidInput(
            f"{checkpoint.folder}: data.corpus now holds other held-out text than the run began with, some of which it "
            "may have been trained on; put the text back, or train anew"
        )
    return choose_text(prepared.held_out, evaluation)


def _measured(path: Path, identity: str, part: str | None = None) -> bool:
    """Whether a series' file, or a part of it, holds what this identity stands for."""
    try:
        content = json.loads(path.read_text())
        return (content if part is None else content[part]).get("identity") == identity
    except (OSError, ValueError, KeyError):
        return False


def _digest(rows: list[dict[str, Any]]) -> str:
    parts = []
    for row in rows:
        if row["protocol"] == "non_overlapping":
            value = f"{row['bits_per_byte']:.3f}" if row["status"] == "ok" else row["status"]
            parts.append(f"{row['length']}: {value}")
    return ", ".join(parts) + " bits per byte"

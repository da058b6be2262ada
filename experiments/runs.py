"""Finding a run folder again: its configuration, read back from config.json."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

from experiments.config import StudyConfig
from experiments.evaluation.config import EvaluationConfig
from experiments.overrides import apply_overrides, changed
from experiments.study import MANIFEST, read_manifest
from models.config import LayerConfig, ModelConfig
from models.errors import InvalidInput
from train.config import RunConfig
from train.configuration import from_config_dict, to_config_dict


def read_run(folder: Path) -> RunConfig:
    """The configuration a run folder was trained with. Raises InvalidInput where it is none, or damaged."""
    path = folder / "config.json"
    if not path.exists():
        below = sorted(p.parent.name for p in folder.glob("runs/*/config.json"))
        hint = f"; {folder} is a study, with the runs {', '.join('runs/' + name for name in below)}" if below else ""
        raise InvalidInput(f"{folder} is not a run folder: it holds no config.json{hint}")
    try:
        values = json.loads(path.read_text())
    except ValueError:
        raise InvalidInput(f"{path} is damaged: it is not JSON") from None
    return from_config_dict(RunConfig, values)


class Context(NamedTuple):
    """What the study around a run says of it; without a study, the defaults."""

    label: str
    evaluation: EvaluationConfig


def read_context(folder: Path, config: RunConfig) -> Context:
    """The label and the evaluation that the study which a run folder belongs to gives it.

    Raises InvalidInput where the study's study.json is damaged or does not list the run: other settings than the
    study's would give numbers that cannot be compared with its others.
    """
    folder = folder.resolve()
    around = folder.parent.parent
    path = around / MANIFEST
    if folder.parent.name != "runs" or not path.exists():
        return Context(config.model.position.name, EvaluationConfig())
    study = read_manifest(around)
    listed = {point.get("run_id"): point for point in study["points"]}
    if folder.name not in listed:
        raise InvalidInput(
            f"{path} does not list the run {folder.name}, so how it is to be evaluated is unknown; the command that "
            "trained it lists it again"
        )
    own = listed[folder.name]
    if not isinstance(own.get("evaluation"), dict):
        raise InvalidInput(
            f"{path} does not say how the run {folder.name} is evaluated; once it is removed, the command that trains "
            "the study writes it anew"
        )
    evaluation = from_config_dict(EvaluationConfig, own["evaluation"], "config.evaluation")
    return Context(str(own.get("label")), evaluation)


class Overridden(NamedTuple):
    """A trained run under overrides. changes: the paths that differ from the run and its study, with their values."""

    model: ModelConfig
    evaluation: EvaluationConfig
    changes: dict[str, Any]


def override_run(config: RunConfig, context: Context, overrides: dict[str, str]) -> Overridden:
    """Applies overrides of `model` and of `evaluation`.

    Raises InvalidInput for an override of anything else, as what is trained cannot be changed any more, and for one
    that no layer would take.
    """
    study = StudyConfig(
        **{f.name: getattr(config, f.name) for f in dataclasses.fields(RunConfig)}, evaluation=context.evaluation
    )
    for path in overrides:
        if path.split(".")[0] not in ("model", "evaluation"):
            raise InvalidInput(
                f"config.{path} cannot be overridden here: a trained run takes config.model (its position, say) "
                "and config.evaluation"
            )
    opened = to_config_dict(study)
    apply_overrides(StudyConfig, opened, overrides)
    closed = from_config_dict(StudyConfig, opened)
    changes = changed(study, closed)
    _require_taken(closed.model, changes)
    return Overridden(closed.model, closed.evaluation, changes)


def _require_taken(model: ModelConfig, changes: dict[str, Any]) -> None:
    """Raises InvalidInput for a change of what every layer of the pattern states for itself: the numbers would be those
    of the run as it is, under a label that says otherwise."""
    for name in (field.name for field in dataclasses.fields(LayerConfig)):
        if any(getattr(layer, name) is None for layer in model.pattern):
            continue
        for path in changes:
            if path.split(".")[:2] == ["model", name]:
                raise InvalidInput(
                    f"config.{path} would change nothing: model.pattern states {name} for every layer, so "
                    "config.model.pattern is what must be overridden"
                )

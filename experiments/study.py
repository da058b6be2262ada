"""A study: a configuration file, the points it sweeps, and the folder that holds what came of them."""

import copy
import dataclasses
import importlib.util
import json
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import ml_collections

from experiments.config import StudyConfig
from experiments.overrides import apply_overrides
from models.errors import InvalidInput, require, require_choice
from train.config import run_id
from train.configuration import from_config_dict, to_plain
from train.files import write_json
from train.initial import InitialConfig
from train.lease import is_held
from train.loop import is_finished
from train.metrics import METRICS_FILE


class Point(NamedTuple):
    """One run of a study. overrides: dotted paths to values, what it changes in the configuration.

    Points of one label differ in their seed alone: they are repetitions, which the report shows as one with a range.
    """

    label: str
    overrides: dict[str, Any]
    config: StudyConfig

    @property
    def run_id(self) -> str:
        return run_id(self.config)

    @property
    def seed(self) -> int:
        return self.config.seed


class Study(NamedTuple):
    """A resolved study and its folder."""

    folder: Path
    config: StudyConfig
    points: list[Point]

    def run_folder(self, point: Point) -> Path:
        return self.folder / "runs" / point.run_id

    def called(self, point: Point) -> str:
        """A point's label, with its seed where others have the same label."""
        repeated = sum(other.label == point.label for other in self.points) > 1
        return f"{point.label} (seed {point.seed})" if repeated else point.label

    def start_of(self, point: Point) -> Point | None:
        """The point of this study whose parameters `point` starts from, or None."""
        start = point.config.initial.identity()
        return next((other for other in self.points if start is not None and other.run_id == start), None)


def load_study(source: str, overrides: Mapping[str, str], output: Path, sweep: bool = True) -> Study:
    """The study of a configuration file, `FILE.py` or `FILE.py:argument`, with overrides applied to every point.

    A file with a mapping SCALES takes one of its names as the argument; an override of `scale` is another way to say
    it. Without `sweep`, or where the file has no get_sweep, the study is the single run of its get_config. A point of
    a sweep says what it changes by dotted paths; its "label"; and in "from" the label of an earlier point whose
    parameters it starts from, of its own seed where several points have that label.

    Raises InvalidInput where the file, a field, a value or two points' labels are wrong, and for an override of what
    every point sets for itself.
    """
    name, _, argument = source.partition(":")
    path = Path(name)
    module = _load(path)
    changes = dict(overrides)
    arguments = _arguments(path, module, argument, changes.pop("scale", None))
    with _naming_the_line(path):
        opened = module.get_config(*arguments)
        entries = list(module.get_sweep(*arguments)) if sweep and hasattr(module, "get_sweep") else None
    if not isinstance(opened, ml_collections.ConfigDict):
        raise InvalidInput(f"{path}: get_config returns {opened!r}; it must return a ConfigDict")
    config, study = _resolve(opened, changes)
    points = [Point(study.model.position.name, {}, study)]
    if entries is not None:
        points = []
        for index, entry in enumerate(entries):
            right = isinstance(entry, Mapping) and isinstance(entry.get("label", ""), str)
            require(right, f"get_sweep()[{index}]", entry, "a dictionary of dotted paths, whose label is text")
            points.append(_point(config, entry, points))
        for field in changes:
            if entries and all(field in entry for entry in entries):
                raise InvalidInput(f"config.{field} cannot be overridden here: every point of {path}'s sweep sets it")
    _require_distinct(points)
    return Study(output / study.name, study, points)


def _arguments(path: Path, module: ModuleType, argument: str, scale: str | None) -> tuple[str, ...]:
    """What get_config and get_sweep are called with."""
    scales = getattr(module, "SCALES", None)
    if scale is not None:
        if scales is None:
            raise InvalidInput(f"config.scale = {scale!r} is not allowed: {path} is of one scale")
        if argument not in ("", scale):
            raise InvalidInput(f"config.scale = {scale!r} is not allowed: {path}:{argument} says another one")
        argument = scale
    if argument and scales is not None:
        require_choice("config.scale", argument, scales)
    return (argument,) if argument else ()


def _point(config: ml_collections.ConfigDict, entry: Mapping[str, Any], earlier: list[Point]) -> Point:
    changes = {key: value for key, value in entry.items() if key not in ("label", "from")}
    _, resolved = _resolve(config, changes)
    label = entry.get("label") or _label(changes)
    if "from" in entry:
        starts = [point for point in earlier if point.label == entry["from"]]
        if not starts:
            labels = ", ".join(dict.fromkeys(repr(point.label) for point in earlier)) or "none"
            raise InvalidInput(f"the point {label!r} starts from {entry['from']!r}; before it there are {labels}")
        same_seed = [point for point in starts if point.seed == resolved.seed]
        if len(starts) > 1 and not same_seed:
            raise InvalidInput(f"the point {label!r} starts from {entry['from']!r}, which has no seed {resolved.seed}")
        changes["initial.run"] = (same_seed or starts)[0].run_id
        _, resolved = _resolve(config, changes)
    return Point(label, changes, resolved)


def _require_distinct(points: Sequence[Point]) -> None:
    runs: dict[str, str] = {}
    labels: dict[str, StudyConfig] = {}
    for point in points:
        if point.run_id in runs:
            raise InvalidInput(f"the points {runs[point.run_id]!r} and {point.label!r} are the same run")
        runs[point.run_id] = point.label
        but_for_seed = dataclasses.replace(point.config, seed=0, initial=InitialConfig())
        if labels.setdefault(point.label, but_for_seed) != but_for_seed:
            raise InvalidInput(f"two points are called {point.label!r} that differ in more than their seed")


def _load(path: Path) -> ModuleType:
    if not path.is_file():
        shipped = sorted(p.name for p in (Path(__file__).parent / "configs").glob("[a-z]*.py"))
        raise InvalidInput(f"no configuration file {path}; shipped ones, in experiments/configs: {', '.join(shipped)}")
    spec = importlib.util.spec_from_file_location(f"longreach_configuration_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InvalidInput(f"{path} is not a Python file with a get_config function")
    module = importlib.util.module_from_spec(spec)
    with _naming_the_line(path):
        spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise InvalidInput(f"{path} defines no get_config function")
    return module


@contextmanager
def _naming_the_line(path: Path) -> Iterator[None]:
    """Turns what goes wrong in a user's configuration file into one line that names the line."""
    try:
        yield
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
        line = error.lineno if isinstance(error, SyntaxError) else (lines or [None])[-1]
        where = path if line is None else f"{path}, line {line}"
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        raise InvalidInput(f"{where}: {type(error).__name__}: {message.splitlines()[0] if message else ''}") from error


def _resolve(
    config: ml_collections.ConfigDict, overrides: Mapping[str, Any]
) -> tuple[ml_collections.ConfigDict, StudyConfig]:
    """A changed copy of the configuration, open and closed."""
    changed = copy.deepcopy(config)  # ConfigDict's own copy shares what is nested
    apply_overrides(StudyConfig, changed, overrides)
    return changed, from_config_dict(StudyConfig, changed)


def _label(changes: Mapping[str, Any]) -> str:
    """A point's label from what it changes but its seed: values alone where they are names."""
    parts = []
    for path, value in changes.items():
        if path == "seed":
            continue
        last = path.split(".")[-1]
        parts.append(str(value) if last == "name" else f"{last} {value}")
    return ", ".join(parts) or "baseline"


MANIFEST = "study.json"


def write_manifest(study: Study) -> None:
    """Writes study.json: what is asked, how every point is evaluated, and how far it is.

    A single run, which changes nothing, joins the points that the file lists already; a sweep replaces them. Of several
    processes the first writes. Raises InvalidInput, in all of them, where the file is there and damaged.
    """
    created = datetime.now(UTC).isoformat(timespec="seconds")
    path = study.folder / MANIFEST
    before = read_manifest(study.folder) if path.exists() else {"points": []}
    points = [_entry(study, point) for point in study.points]
    if len(study.points) == 1 and not study.points[0].overrides:
        points = _joined(study, before["points"], points[0])
    swept = list(dict.fromkeys(key for point in points for key in point.get("overrides") or {}))
    config = study.config
    manifest = {
        "name": config.name,
        "title": config.title or config.name,
        "description": config.description,
        "created": before.get("created", created),
        "swept": swept,
        "points": points,
    }
    # Of several processes the first writes for all. is_initialized, unlike process_index, starts no accelerator: a
    # sweep's parent process must not take one.
    if not jax.distributed.is_initialized() or jax.process_index() == 0:
        study.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """study.json of a study's folder, its `points` a list of objects. Raises InvalidInput where it is no such file."""
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InvalidInput(
            f"{path} cannot be read as JSON: {reason}; once it is removed, the command that trains the study writes it "
            "anew"
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("points"), list):
        raise InvalidInput(f"{path} is not a study: it must be an object with a list `points`")
    for index, entry in enumerate(content["points"]):
        if not isinstance(entry, dict):
            raise InvalidInput(f"{path}: points[{index}] is {entry!r}; it must be an object")
    return content


def _joined(study: Study, listed: Sequence[dict[str, Any]], own: dict[str, Any]) -> list[dict[str, Any]]:
    """What is listed already, as far as it is by now, and `own` where it is not among it.

    A run that is listed under the label of `own`, so that their tables are one, is evaluated as `own` from now on.
    """
    points = []
    for entry in listed:
        folder = study.folder / "runs" / str(entry.get("run_id"))
        points.append(entry | progress(folder)._asdict() if folder.is_dir() else entry)
        if (entry.get("run_id"), entry.get("label")) == (own["run_id"], own["label"]):
            points[-1] = points[-1] | {"evaluation": own["evaluation"]}
    return points if own["run_id"] in [entry.get("run_id") for entry in points] else [*points, own]


def _entry(study: Study, point: Point) -> dict[str, Any]:
    state = progress(study.run_folder(point))
    return {
        "label": point.label,
        "run_id": point.run_id,
        "overrides": point.overrides,
        "train_length": point.config.train.length,
        "evaluation": to_plain(point.config.evaluation),
        **state._asdict(),
    }


class Progress(NamedTuple):
    """How far a run is: finished, failed, running, interrupted or missing; and the line it failed with."""

    status: str
    error: str | None


def progress(folder: Path) -> Progress:
    """How far the run in `folder` is, by what the folder holds now."""
    error = read_error(folder)
    if error is not None:
        return Progress("failed", error)
    if is_finished(folder):
        return Progress("finished", None)
    if is_held(folder):
        return Progress("running", None)
    began = any((folder / name).exists() for name in ("config.json", METRICS_FILE))
    return Progress("interrupted" if began else "missing", None)


ERROR = "error.txt"


def read_error(folder: Path) -> str | None:
    """The line a run failed with, or None."""
    path = folder / ERROR
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else None

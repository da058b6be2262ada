"""Studies: a configuration file, its points and its manifest; and what files and sweeps are refused for."""

import json

import pytest

from experiments.study import ERROR, load_study, write_manifest
from models.errors import InvalidInput
from train.lease import Lease

BASE = """
from experiments.config import StudyConfig
from train.configuration import to_config_dict

def get_config(arg="plain"):
    config = to_config_dict(StudyConfig(name="two"))
    config.description = arg
    return config
"""
SWEEP = """
def get_sweep(arg=None):
    return {entries}
"""


def swept(*entries):
    return BASE + SWEEP.format(entries=list(entries))


@pytest.fixture
def file(tmp_path):
    def write(*parts):
        path = tmp_path / "two.py"
        path.write_text("".join(parts))
        return str(path)

    return write


def load(path, tmp_path, sweep=True, **overrides):
    return load_study(path, {name.replace("__", "."): value for name, value in overrides.items()}, tmp_path, sweep)


def test_points_are_the_sweeps_with_labels_from_what_they_change(file, tmp_path):
    entries = [
        {"model.position.name": "alibi"},
        {"model.position.name": "rope", "optimizer.learning_rate": 1e-2},
        {"label": "own", "model.position.scaling.name": "yarn", "model.position.scaling.factor": 2.0},
    ]
    study = load(file(BASE, SWEEP.format(entries=entries)), tmp_path, train__steps="200")
    assert study.folder == tmp_path / "two"
    assert [point.label for point in study.points] == ["alibi", "rope, learning_rate 0.01", "own"]
    assert {point.config.train.steps for point in study.points} == {200}
    assert study.points[2].config.model.position.scaling.factor == 2.0
    assert len({point.run_id for point in study.points}) == 3
    assert study.run_folder(study.points[0]).parent == tmp_path / "two" / "runs"


def test_what_one_point_changes_is_not_seen_by_the_others(file, tmp_path):
    entries = [
        {"label": "long", "train.length": 4000, "model.position.name": "alibi", "seed": 5},
        {"label": "plain"},
        {"label": "wide", "model.width": 256},
    ]
    study = load(file(swept(*entries)), tmp_path)
    long, plain, wide = (point.config for point in study.points)
    assert plain == study.config and plain.train.length == 128 and plain.model.position.name == "rope"
    assert (long.train.length, wide.train.length) == (4000, 128) and (long.model.width, wide.model.width) == (128, 256)


def test_without_a_sweep_a_study_is_one_run_and_takes_an_argument(file, tmp_path):
    study = load(file(BASE) + ":loud", tmp_path)
    assert [point.label for point in study.points] == ["rope"] and study.config.description == "loud"
    single = load(file(BASE, SWEEP.format(entries=[{"seed": 1}, {"seed": 2}])), tmp_path, sweep=False)
    assert len(single.points) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_config(:\n", r"two\.py, line 1: SyntaxError: "),
        ("import nothing_of_the_kind\n", r"two\.py, line 1: ModuleNotFoundError: No module named"),
        ("x = 1\n\ndef get_config():\n    return 1 / 0\n", r"two\.py, line 4: ZeroDivisionError: division by zero$"),
        ("x = 1\n", r"two\.py defines no get_config function"),
        ("def get_config():\n    pass\n", r"two\.py: get_config returns None; it must return a ConfigDict"),
        (swept({"seed": 1}, {"seed": 1}), "'seed 1' and 'seed 1' are the same run"),
        (
            swept({"label": "a", "seed": 1}, {"label": "b", "seed": 1}),
            "'a' and 'b' are the same",
        ),
        (
            swept({"label": "a", "seed": 1}, {"label": "a", "seed": 2}),
            "two points are called 'a'",
        ),
        (
            swept({"model.hedas": 1}),
            r"config\.model\.hedas is unknown \(did you mean heads\?\)",
        ),
    ],
)
def test_a_file_that_goes_wrong_is_refused_in_one_line(file, tmp_path, text, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        load(file(text), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused_with_those_that_are_shipped(tmp_path):
    with pytest.raises(InvalidInput, match=r"no configuration file nowhere\.py; shipped ones.*quickstart\.py"):
        load("nowhere.py", tmp_path)
    with pytest.raises(InvalidInput, match="takes 0 positional arguments but 1 was given"):
        path = tmp_path / "none.py"
        path.write_text("def get_config():\n    pass\n")
        load(f"{path}:argument", tmp_path)


def test_the_manifest_says_how_far_every_point_is(file, tmp_path):
    study = load(file(BASE, SWEEP.format(entries=[{"seed": seed} for seed in range(5)])), tmp_path)
    finished, failed, interrupted, running, _ = (study.run_folder(point) for point in study.points)
    for folder in (finished, failed, interrupted, running):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    (finished / "finished.json").write_text("{}")
    (failed / ERROR).write_text("the text is gone\n")
    with Lease(running):
        write_manifest(study)
    manifest = json.loads((study.folder / "study.json").read_text())
    statuses = [point["status"] for point in manifest["points"]]
    assert statuses == ["finished", "failed", "interrupted", "running", "missing"]
    assert [point["error"] for point in manifest["points"]] == [None, "the text is gone", None, None, None]
    assert manifest["swept"] == ["seed"] and manifest["points"][3]["overrides"] == {"seed": 3}
    (study.folder / "study.json").write_text(json.dumps(manifest | {"created": "long ago"}))
    write_manifest(study)
    assert json.loads((study.folder / "study.json").read_text())["created"] == "long ago"

"""Studies: a configuration file, its points and its manifest; and what files and sweeps are refused for."""

import json

import pytest

from experiments.study import ERROR, load_study, progress, write_manifest
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


def test_points_that_differ_in_their_seed_share_a_label_and_start_from_their_own_seed(file, tmp_path):
    entries = [{"label": "a", "seed": seed} for seed in (0, 1)]
    entries += [{"label": "b", "from": "a", "train.length": 64, "seed": seed} for seed in (0, 1)]
    entries += [{"label": "c", "from": "b", "seed": 1}, {"model.position.name": "alibi", "seed": 3}]
    study = load(file(swept(*entries)), tmp_path)
    a0, a1, b0, b1, c, alibi = study.points
    assert [study.start_of(point) for point in study.points] == [None, None, a0, a1, b1, None]
    assert b1.config.initial.run == a1.run_id and b1.overrides["initial.run"] == a1.run_id
    assert b0.overrides.keys() == {"train.length", "seed", "initial.run"}
    called = ["a (seed 0)", "a (seed 1)", "b (seed 0)", "b (seed 1)", "c", "alibi"]
    assert [study.called(point) for point in study.points] == called
    assert len({point.run_id for point in study.points}) == 6 and alibi.label == "alibi" and c.seed == 1
    # Another seed, rate or step of the start makes another run of what starts from it.
    changed = load(file(swept(*entries)), tmp_path, train__steps="299")
    assert changed.points[2].config.initial.run == changed.points[0].run_id != a0.run_id


def test_a_scale_is_the_argument_of_a_file_that_has_scales(file, tmp_path):
    path = file(BASE, 'SCALES = {"tiny": 1, "small": 2}\n')
    said = [
        load(path + ":tiny", tmp_path),
        load(path, tmp_path, scale="tiny"),
        load(path + ":tiny", tmp_path, scale="tiny"),
    ]
    assert [study.config.description for study in said] == ["tiny"] * 3
    assert load(path, tmp_path).config.description == "plain"
    for source, scale in ((path, "huge"), (path + ":huge", None)):
        with pytest.raises(InvalidInput, match=r"config\.scale = 'huge' is not allowed; it must be one of tiny, small"):
            load(source, tmp_path, **({} if scale is None else {"scale": scale}))
    with pytest.raises(InvalidInput, match=r"config\.scale = 'tiny' is not allowed: \S+:small says another one"):
        load(path + ":small", tmp_path, scale="tiny")
    with pytest.raises(InvalidInput, match=r"config\.scale = 'tiny' is not allowed: \S+two\.py is of one scale"):
        load(file(BASE), tmp_path, scale="tiny")


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
        (swept({"seed": 1}, {"seed": 1}), "'baseline' and 'baseline' are the same run"),
        (
            swept({"label": "a", "seed": 1}, {"label": "b", "seed": 1}),
            "'a' and 'b' are the same",
        ),
        (
            swept({"label": "a", "seed": 1}, {"label": "a", "seed": 2, "model.width": 64}),
            "two points are called 'a' that differ in more than their seed",
        ),
        (
            swept({"label": "a"}, {"label": "b", "from": "c"}, {"label": "c", "seed": 1}),
            "the point 'b' starts from 'c'; before it there are 'a'",
        ),
        (
            swept({"label": "a"}, {"label": "a", "seed": 1}, {"label": "b", "from": "a", "seed": 2}),
            "the point 'b' starts from 'a', which has no seed 2",
        ),
        (
            swept({"model.hedas": 1}),
            r"config\.model\.hedas is unknown \(did you mean heads\?\)",
        ),
        (
            swept({"seed": 1}, {"label": 512}),
            r"get_sweep\(\)\[1\] = \{'label': 512\} is not allowed; it must be a dict",
        ),
    ],
)
def test_a_file_that_goes_wrong_is_refused_in_one_line(file, tmp_path, text, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        load(file(text), tmp_path)
    assert "\n" not in str(caught.value)


def test_what_every_point_sets_cannot_be_overridden(file, tmp_path):
    path = file(swept({"seed": 1, "model.width": 16}, {"seed": 2}))
    with pytest.raises(
        InvalidInput, match=r"config\.seed cannot be overridden here: every point of \S+'s sweep sets it"
    ):
        load(path, tmp_path, seed="7")
    assert [point.config.model.width for point in load(path, tmp_path, **{"model.width": "32"}).points] == [16, 32]


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
    (study.folder / "study.json").write_text('{"points": [')
    with pytest.raises(InvalidInput, match=r"study\.json cannot be read as JSON: "):
        write_manifest(study)


def test_of_several_processes_the_first_writes_the_manifest_and_a_single_one_asks_for_no_device(
    file, tmp_path, monkeypatch
):
    study = load(file(BASE), tmp_path)
    asked = []
    monkeypatch.setattr("jax.process_index", lambda: asked.append("index") or 1)
    monkeypatch.setattr("jax.distributed.is_initialized", lambda: True)
    write_manifest(study)
    assert not study.folder.exists() and asked == ["index"]
    monkeypatch.setattr("jax.distributed.is_initialized", lambda: False)
    write_manifest(study)
    assert (study.folder / "study.json").exists() and asked == ["index"]


def test_a_run_that_holds_the_lock_runs_whatever_else_its_folder_holds(tmp_path):
    with Lease(tmp_path):  # taken before config.json is written, while the text is prepared
        assert progress(tmp_path) == ("running", None)
    assert progress(tmp_path) == ("missing", None)
    (tmp_path / "metrics.jsonl").write_text("")
    assert progress(tmp_path) == ("interrupted", None)


def test_a_single_run_joins_the_points_of_its_study(file, tmp_path):
    source = file(swept({"label": "a"}, {"label": "b", "seed": 1}))
    sweep = load(source, tmp_path)
    write_manifest(sweep)
    (sweep.run_folder(sweep.points[1])).mkdir(parents=True)
    (sweep.run_folder(sweep.points[1]) / "finished.json").write_text("{}")
    write_manifest(load(source, tmp_path, sweep=False))  # the run of the point "a"
    write_manifest(load(source, tmp_path, sweep=False, seed="7"))
    manifest = json.loads((sweep.folder / "study.json").read_text())
    points = [(point["label"], point["overrides"], point["status"]) for point in manifest["points"]]
    assert points == [("a", {}, "missing"), ("b", {"seed": 1}, "finished"), ("rope", {}, "missing")]
    assert manifest["swept"] == ["seed"]
    write_manifest(sweep)
    assert len(json.loads((sweep.folder / "study.json").read_text())["points"]) == 2


def test_a_single_run_that_joins_leaves_the_others_their_evaluation_and_their_training_length(file, tmp_path):
    source = file(swept({"label": "a"}, {"label": "b", "seed": 1}))

    def listed(sweep, **overrides):
        write_manifest(load(source, tmp_path, sweep, **overrides))
        points = json.loads((tmp_path / "two" / "study.json").read_text())["points"]
        return [(point["label"], point["train_length"], point["evaluation"]["lengths"]) for point in points]

    usual = [128, 256, 512, 1024, 2048]
    of_sweep = [("a", 128, usual), ("b", 128, usual)]
    assert listed(True) == of_sweep
    other = {"train__length": "64", "evaluation__lengths": "64,"}
    assert listed(False, **other) == [*of_sweep, ("rope", 64, [64])]
    # The run of the point "a", whose table is another file under another label; then its own table anew.
    assert listed(False, evaluation__lengths="32,") == [*of_sweep, ("rope", 64, [64])]
    assert listed(False, **other | {"evaluation__lengths": "96,"}) == [*of_sweep, ("rope", 64, [96])]

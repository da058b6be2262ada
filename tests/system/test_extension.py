"""A study one of whose points starts from another: trained in order, evaluated, and told where it cannot be."""

import pytest

from experiments.pool import Pool
from experiments.run import run_study
from experiments.study import ERROR, load_study
from experiments.worker import work
from models.errors import InvalidInput
from tests.system.tiny import command, one_line, read_json, write_study

SWEEP = """
def get_sweep():
    return [
        {"label": "rope"},
        {"label": "longer", "from": "rope", "train.length": 32, "train.steps": 3, "model.position.name": "none"},
    ]
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = write_study(tmp_path_factory.mktemp("extension"))
    path.write_text(path.read_text().split("def get_sweep")[0] + SWEEP)
    return path


def test_a_point_that_starts_from_another_runs_after_it(config, tmp_path, monkeypatch, capsys):
    # Workers within this process: starting processes is what most of the time would go to.
    monkeypatch.setattr(Pool, "_one", lambda pool, point, cores: work(pool._study, point, True) or "finished")
    study = load_study(str(config), {}, tmp_path)
    rope, longer = study.points
    assert run_study(study, study.points, [], evaluates=True)
    assert f"{longer.run_id}: " in (said := capsys.readouterr().out)
    assert f"3 steps of 8 × 32, from run {rope.run_id}" in said
    assert [point["status"] for point in read_json(study.folder / "study.json")["points"]] == ["finished", "finished"]
    folder = study.run_folder(longer)
    assert read_json(folder / "config.json")["initial"] == {"run": rope.run_id}
    assert read_json(folder / "evaluation" / "longer.json")["train_length"] == 32
    assert run_study(study, study.points, [], evaluates=True)
    assert "2 of 2 runs" in capsys.readouterr().out


def test_what_starts_from_a_failed_or_missing_point_says_which(config, tmp_path):
    study = load_study(str(config), {}, tmp_path)
    rope, longer = study.points
    with pytest.raises(InvalidInput, match="it starts from 'rope', which is not finished"):
        work(study, longer, evaluates=False)
    assert (study.run_folder(longer) / ERROR).read_text() == "it starts from 'rope', which is not finished\n"
    study.run_folder(rope).mkdir(parents=True)
    (study.run_folder(rope) / ERROR).write_text("the loss is not finite\n")
    with pytest.raises(InvalidInput, match=r"it starts from 'rope', which failed: the loss is not finite$"):
        work(study, longer, evaluates=False)
    ended = command("train", config, "--output", tmp_path, "--point", "longer")
    assert ended.status == 2
    assert one_line(ended.err) == "longreach: it starts from 'rope', which failed: the loss is not finite"

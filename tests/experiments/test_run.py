"""How a study ends: what failed, or ended without finishing, is named, and the exit status says so."""

import pytest

from experiments.run import finish
from experiments.study import ERROR, load_study
from tests.system.tiny import write_study


@pytest.fixture
def study(tmp_path):
    return load_study(str(write_study(tmp_path)), {}, tmp_path / "studies")


def write(study, label, name, text="{}"):
    (point,) = [point for point in study.points if point.label == label]
    folder = study.run_folder(point)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_a_study_whose_points_are_finished_ends_well(study, capsys):
    write(study, "rope", "finished.json")
    write(study, "alibi", "finished.json")
    finish(study, study.points, ended=True)
    assert capsys.readouterr().err == ""


def test_points_that_failed_or_vanished_are_named(study, capsys):
    # One wrote down why; the other was killed, or its folder belongs to another process.
    write(study, "rope", ERROR, "the text is gone\n")
    with pytest.raises(SystemExit) as ended:
        finish(study, study.points, ended=True)
    assert ended.value.code == 1
    words = "longreach: failed: rope (the text is gone); alibi (it ended without finishing)\n"
    assert capsys.readouterr().err == words


def test_a_point_whose_evaluation_failed_is_not_taken_for_finished(study, capsys):
    write(study, "rope", "finished.json")
    write(study, "rope", ERROR, "out of memory\n")
    with pytest.raises(SystemExit):
        finish(study, study.points[:1], ended=True)
    assert "rope (out of memory)" in capsys.readouterr().err


def test_a_stopped_study_says_how_to_go_on(study, capsys):
    finish(study, study.points, ended=False)
    assert capsys.readouterr().out == "stopped; the same command goes on from here\n"

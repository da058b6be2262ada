"""How a study ends: what failed, or ended without finishing, is named, and the exit status says so."""

import json

import pytest

from experiments.run import finish, run_study
from experiments.study import ERROR, load_study
from tests.system.tiny import one_line, write_study
from train.data import prepare


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


def test_runs_finished_on_other_text_are_named_and_not_trained_again(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LONGREACH_CACHE", str(tmp_path / "cache"))
    texts = tmp_path / "texts"

    def said():
        assert run_study(study, study.points, [], evaluates=False)
        out, err = capsys.readouterr()
        assert out.startswith("2 of 2 runs")
        return [line for line in err.splitlines() if not line.endswith(", once")]

    for label in ("rope", "alibi"):
        hashes = prepare(study.config.data, study.config.tokenizer).hashes if label == "rope" else {}
        write(study, label, "finished.json")
        write(study, label, "provenance.json", json.dumps(hashes))
    assert said() == []
    (texts / "pass.txt").write_text("other words")
    line = one_line("\n".join(said()))
    assert line.startswith("longreach: trained on other text, or with another tokenizer, than the configuration gives")
    assert line.endswith(f"now: rope ({study.run_folder(study.points[0])}); to train a run anew, remove its folder")
    for text in texts.iterdir():
        text.unlink()
    assert said() == []

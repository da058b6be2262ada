"""`train` as a whole command: ctrl-C and SIGTERM save and say how to go on; a run that cannot go on says why."""

import signal

import pytest

from tests.system.tiny import assert_same_run, command, one_line, read_json, run_config, write_study
from train import loop
from train.checkpoints import saved_steps
from train.loop import train


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    return write_study(folder)


@pytest.fixture(scope="module")
def straight(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    train(run_config(study.parent), folder)
    return folder


def run_folder(output):
    (folder,) = (output / "tiny" / "runs").iterdir()
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_says_how_to_go_on_and_does(study, straight, tmp_path, monkeypatch, number):
    report = loop._report

    def stopping(config, pending, *rest):
        if pending[0] == 5:
            signal.raise_signal(number)
        return report(config, pending, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_report", stopping)
        stopped = command("train", study, "--output", tmp_path)
    assert stopped.status == 0 and stopped.err == ""
    assert stopped.out.splitlines()[-2:] == [
        "stopped at step 6 of 12, saved; run it again to go on",
        "stopped; the same command goes on from here",
    ]
    ended = command("train", study, "--output", tmp_path)
    assert ended.status == 0 and ended.out.splitlines()[-1] == f"run: {run_folder(tmp_path)}"
    assert_same_run(run_folder(tmp_path), straight)


def test_a_run_that_diverges_ends_with_one_line_and_status_1(study, tmp_path):
    ended = command("train", study, "--output", tmp_path, "--config.optimizer.learning_rate=1e30")
    assert ended.status == 1
    line = one_line(ended.err)
    assert line.startswith("longreach: loss, gradient or update is not finite at step ")
    folder = run_folder(tmp_path)
    assert saved_steps(folder / "checkpoints") == []
    (point,) = read_json(tmp_path / "tiny" / "study.json")["points"]
    assert point["status"] == "failed" and f"longreach: {point['error']}" == line
    # Refused again, and for the same reason: nothing of the first attempt is in the way.
    assert one_line(command("train", study, "--output", tmp_path, "--config.optimizer.learning_rate=1e30").err) == line


def test_a_full_disk_ends_with_one_line_and_keeps_what_was_saved(study, straight, tmp_path, monkeypatch):
    from train.metrics import MetricsWriter

    write = MetricsWriter.write

    def full(self, step, metrics):
        if step == 9:
            raise OSError(28, "No space left on device", "metrics.jsonl")
        write(self, step, metrics)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsWriter, "write", full)
        ended = command("train", study, "--output", tmp_path)
    assert ended.status == 1
    assert one_line(ended.err) == "longreach: the disk is full: metrics.jsonl; what was saved before is intact"
    folder = run_folder(tmp_path)
    assert saved_steps(folder / "checkpoints") == [4, 8]
    assert command("train", study, "--output", tmp_path).status == 0
    assert_same_run(folder, straight)

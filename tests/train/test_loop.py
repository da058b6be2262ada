"""The loop: stopping and going on changes nothing, what is not finite is never kept, and the device never waits."""

import dataclasses
import errno
import io
import json
import signal

import jax
import numpy as np
import pytest

from models.errors import InvalidInput
from tests.system.tiny import (
    assert_same_run,
    held_out_losses,
    losses,
    parameters,
    run_config,
    training,
    write_texts,
)
from train import loop
from train.batches import Batches
from train.checkpoints import CheckpointConfig, saved_steps
from train.lease import InUse, Lease
from train.loop import Diverged, Interrupted, is_finished, train
from train.metrics import METRICS_FILE, MetricsWriter, read_metrics
from train.sharding import MeshConfig, ShardingConfig, build_mesh
from train.tokenizers.byte_bpe import ByteBPE


@pytest.fixture(autouse=True, scope="module")
def surroundings(tmp_path_factory):
    """A cache of its own, and quick compilation: unoptimized machine code computes the same."""
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGREACH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder)
    return folder


@pytest.fixture(scope="module")
def config(texts):
    return run_config(texts)


@pytest.fixture(scope="module")
def straight(config, tmp_path_factory):
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("straight")
    train(config, folder)
    return folder


def stop_at(monkeypatch, step, number):
    """Sends a signal when the metrics of a step are looked at."""
    report = loop._report

    def reporting(config, pending, *rest):
        if pending[0] == step:
            signal.raise_signal(number)
        return report(config, pending, *rest)

    monkeypatch.setattr(loop, "_report", reporting)


def poison(monkeypatch, steps, times=10**6):
    """Makes the batches of some steps not a number, for so many readings of them."""
    gather, read = Batches.__getitem__, dict.fromkeys(steps, 0)

    def poisoned(self, step):
        batch = gather(self, step)
        if step in read and read[step] < times and len(self._packing.store.document_names) > 1:
            read[step] += 1
            return batch | {"weights": batch["weights"] * np.float32(np.nan)}
        return batch

    monkeypatch.setattr(Batches, "__getitem__", poisoned)


def test_a_run_leaves_everything_that_describes_it(straight, config):
    assert is_finished(straight)
    finished = json.loads((straight / "finished.json").read_text())
    assert finished["step"] == 12 and finished["parameters"] == sum(a.size for a in parameters(straight).values())
    assert saved_steps(straight / "checkpoints") == [8, 12]
    facts = json.loads((straight / "provenance.json").read_text())
    assert {"commit", "versions", "data_hash", "held_out_hash", "tokenizer_hash", "run_id"} <= facts.keys()
    assert (straight / "tokenizer").is_dir() and list((straight / "tensorboard").iterdir())
    assert [step for step, _ in losses(straight)] == list(range(1, 13))
    assert [step for step, _ in held_out_losses(straight)] == [6, 12]
    last = read_metrics(straight / METRICS_FILE)[-2]
    assert last["tokens"] == 12 * 8 * 16 and last["learning_rate"] > 0 and last["data_wait_seconds"] >= 0
    assert losses(straight)[-1][1] < losses(straight)[0][1]


def test_watched_layers_stand_in_the_lines_of_steps(config, tmp_path):
    metrics = {"loss": np.float32(2), "skipped": np.int32(0), "layer_rms": np.array([1, np.nan], np.float32)}
    with MetricsWriter(tmp_path) as writer:
        loop._report(config, (1, metrics), writer, loop._Silent(), loop._Meter(1, 1, build_mesh(MeshConfig())), 0.0)
    (line,) = read_metrics(tmp_path / METRICS_FILE)
    assert line["loss"] == 2 and line["layer_rms"] == [1, None]


def test_a_finished_run_is_left_alone(straight, config):
    before = {path: path.stat().st_mtime_ns for path in straight.rglob("*")}
    train(config, straight)
    assert {path: path.stat().st_mtime_ns for path in straight.rglob("*")} == before


@pytest.mark.parametrize(("number", "step"), [(signal.SIGTERM, 5), (signal.SIGINT, 7)])
def test_stopping_and_going_on_changes_no_bit(config, straight, tmp_path, monkeypatch, capsys, number, step):
    with monkeypatch.context() as patch:
        stop_at(patch, step, number)
        with pytest.raises(Interrupted) as stopped:
            train(config, tmp_path)
    # The signal arrives while the next step is under way already.
    assert str(stopped.value) == f"stopped at step {step + 1} of 12, saved; run it again to go on"
    assert saved_steps(tmp_path / "checkpoints")[-1] == step + 1 and not is_finished(tmp_path)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train(config, tmp_path)
    assert f"from step {step + 1}" in capsys.readouterr().out
    assert_same_run(tmp_path, straight)
    seconds = [line["seconds"] for line in read_metrics(tmp_path / METRICS_FILE) if "seconds" in line]
    assert seconds == sorted(seconds)
    facts = json.loads((tmp_path / "provenance.json").read_text())
    (earlier,) = facts["earlier"]
    assert (earlier["from_step"], facts["from_step"]) == (0, step + 1)
    assert earlier["versions"] == facts["versions"] and earlier["date"] <= facts["date"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_stopping_before_the_first_step_stops_at_once(config, tmp_path, monkeypatch, number):
    monkeypatch.setattr(loop, "prepare", lambda *recipe: signal.raise_signal(number))
    before = signal.signal(number, signal.SIG_DFL)  # it may be ignored here, as in the background
    try:
        with pytest.raises(Interrupted, match="stopped before it took a step; run it again to go on"):
            train(config, tmp_path)
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert [path.name for path in tmp_path.iterdir()] == ["owner.lock"]


def test_a_run_goes_on_when_its_terminal_is_closed(config, straight, tmp_path, monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("sys.stdout", Closed())
    train(config, tmp_path)
    assert_same_run(tmp_path, straight)


def test_stopping_twice_stops_at_once(config, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 3, signal.SIGINT)
        patch.setattr(loop._Stop, "requested", lambda self, step: False)
        report = loop._report
        patch.setattr(loop, "_report", lambda config, pending, *rest: report(config, (3, pending[1]), *rest))
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path)
    assert not is_finished(tmp_path)
    with Lease(tmp_path):  # which the interrupted run has given back
        pass


def test_a_second_writer_is_refused_and_changes_nothing(config, tmp_path):
    with Lease(tmp_path), pytest.raises(InUse, match="is in use by process"):
        train(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["owner.lock"]


def test_a_step_is_dispatched_before_the_metrics_of_the_one_before_are_fetched(config, tmp_path, monkeypatch):
    events = []
    report, build = loop._report, loop.Trainer.__init__

    def building(self, *arguments):
        build(self, *arguments)
        compiled = self.step

        def step(state, batch):
            events.append(("dispatched", len([event for event in events if event[0] == "dispatched"]) + 1))
            return compiled(state, batch)

        self.step = step

    def reporting(config, pending, *rest):
        events.append(("fetched", pending[0]))
        return report(config, pending, *rest)

    monkeypatch.setattr(loop.Trainer, "__init__", building)
    monkeypatch.setattr(loop, "_report", reporting)
    train(dataclasses.replace(config, checkpoint=CheckpointConfig(every=100)), tmp_path)
    assert [step for kind, step in events if kind == "fetched"] == list(range(1, 13))
    # All but those that a look follows at once: 6 and 12.
    for step in (1, 2, 3, 4, 5, 7, 8, 9, 10, 11):
        assert events.index(("dispatched", step + 1)) < events.index(("fetched", step))


def test_steps_that_are_not_finite_are_skipped_and_counted(config, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, {5, 6})
    train(config, tmp_path)
    lines = {line["step"]: line for line in read_metrics(tmp_path / METRICS_FILE) if "loss" in line}
    assert list(lines) == list(range(1, 13))
    assert [step for step, line in lines.items() if line["loss"] is None] == [6, 7]
    assert [lines[step]["skipped"] for step in (5, 6, 7, 8)] == [0, 1, 2, 0]
    assert "step 7 skipped: its loss, gradient or update is not finite" in capsys.readouterr().out
    assert all(np.isfinite(array).all() for array in parameters(tmp_path).values())


def test_after_three_in_a_row_a_run_goes_back_and_reads_other_text(config, straight, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, {5, 6, 7})
    with monkeypatch.context() as patch:
        stop_at(patch, 10, signal.SIGTERM)
        with pytest.raises(Interrupted):
            train(config, tmp_path)
    assert "3 steps in a row were not finite: back to step 4, on with later text" in capsys.readouterr().out
    train(config, tmp_path)  # which knows what was passed over
    assert [step for step, _ in losses(tmp_path)] == list(range(1, 13))
    assert np.isfinite([loss for _, loss in losses(tmp_path)]).all()
    assert losses(tmp_path)[:4] == losses(straight)[:4] and losses(tmp_path)[4:] != losses(straight)[4:]


def test_a_run_that_is_not_finite_again_is_refused_and_keeps_its_last_good_state(
    config, straight, tmp_path, monkeypatch
):
    poison(monkeypatch, set(range(8, 40)))
    with pytest.raises(Diverged) as refused:
        train(config, tmp_path)
    assert "again after going back; step 8 is saved; a lower optimizer.learning_rate" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert saved_steps(tmp_path / "checkpoints") == [4, 8] and not is_finished(tmp_path)
    assert all(np.isfinite(array).all() for array in parameters(tmp_path).values())
    monkeypatch.undo()
    monkeypatch.setenv("LONGREACH_CACHE", str(tmp_path / "cache"))
    train(config, tmp_path)  # and once the cause is gone it goes on
    assert_same_run(tmp_path, straight)


def test_a_learning_rate_that_overflows_saves_nothing(config, tmp_path):
    absurd = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, learning_rate=1e30))
    with pytest.raises(Diverged, match="nothing was saved"):
        train(absurd, tmp_path)
    assert saved_steps(tmp_path / "checkpoints") == []


def test_going_on_with_other_text_is_refused_and_changes_nothing(config, texts, tmp_path, monkeypatch):
    own = tmp_path / "own"
    write_texts(own)
    mine = run_config(own)
    with monkeypatch.context() as patch:
        stop_at(patch, 3, signal.SIGTERM)
        with pytest.raises(Interrupted):
            train(mine, tmp_path / "run")
    before = (tmp_path / "run" / "provenance.json").read_bytes()
    for file in (own / "texts").iterdir():
        file.write_text(file.read_text().upper())
    with pytest.raises(InvalidInput, match="cannot go on: it began with another training text than the configuration"):
        train(mine, tmp_path / "run")
    other = dataclasses.replace(mine, tokenizer=ByteBPE(vocabulary_size=270))
    with pytest.raises(InvalidInput, match="cannot go on: it began with another tokenizer than the configuration"):
        train(other, tmp_path / "run")
    assert (tmp_path / "run" / "provenance.json").read_bytes() == before


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(config, straight, tmp_path, monkeypatch, capfd):
    with monkeypatch.context() as patch:
        stop_at(patch, 9, signal.SIGTERM)
        with pytest.raises(Interrupted):
            train(config, tmp_path)
    largest = max((tmp_path / "checkpoints" / "10").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    train(config, tmp_path)
    captured = capfd.readouterr()
    assert "damaged checkpoint: step 10 (" in captured.err and "step 8 is used instead" in captured.err
    assert_same_run(tmp_path, straight)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"sharding": ShardingConfig(MeshConfig(data=2))},
            "sharding.mesh of data 2 needs 2 devices, but there are only 1 device",
        ),
        ({"train": training(length=4000)}, "train.length = 4000 is not allowed"),
        ({"train": training(length=5000, batch_size=1)}, "train.length = 5000 is not allowed"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(config, tmp_path, changes, words):
    with pytest.raises(InvalidInput) as refused:
        train(dataclasses.replace(config, **changes), tmp_path)
    assert words in str(refused.value) and "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["owner.lock"]

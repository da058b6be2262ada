"""Starting from another run's parameters: what is taken, what is refused, and that going on changes no bit."""

import dataclasses
import json
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from models.config import ModelConfig
from models.errors import InvalidInput
from models.positions import T5, NoPosition
from tests.system.tiny import assert_same_run, losses, parameters, run_config, training, write_texts
from train import loop
from train.checkpoints import CheckpointConfig, saved_steps
from train.initial import InitialConfig
from train.loop import Interrupted, train
from train.tokenizers.byte_bpe import ByteBPE

ID = "0123456789ab"
MODEL = ModelConfig(layers=2, width=16, heads=2)


@pytest.fixture(autouse=True, scope="module")
def surroundings(tmp_path_factory):
    """A cache of its own, and quick compilation."""
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGREACH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of runs with one in it that was trained with T5 positions."""
    folder = tmp_path_factory.mktemp("runs")
    write_texts(folder)
    train(run_config(folder, model=MODEL.replace(position=T5()), train=training(steps=4)), folder / ID)
    return folder


def start_from(folder, run, **changes):
    """A short run at twice the length, without positions."""
    usual = {
        "model": MODEL.replace(position=NoPosition()),
        "train": training(length=32, batch_size=4, steps=5),
        "initial": InitialConfig(run),
    }
    return run_config(folder, **usual | changes)


def test_a_run_is_its_id_wherever_its_folder_is():
    assert InitialConfig().identity() is None
    assert InitialConfig(ID).identity() == InitialConfig(f"elsewhere/runs/{ID}").identity() == ID
    assert InitialConfig("elsewhere/best").identity() == "elsewhere/best"
    assert InitialConfig(ID).folder(Path("study/runs")) == Path("study/runs") / ID
    assert InitialConfig(f"elsewhere/{ID}").folder(Path("study/runs")) == Path("elsewhere") / ID
    with pytest.raises(InvalidInput, match="run = ' ' is not allowed; it must be the id of a run in the same study"):
        InitialConfig(" ")


def test_parameters_are_taken_by_name_and_what_is_not_asked_for_is_left(runs, tmp_path, capsys):
    config = start_from(runs, str(runs / ID))
    still = dataclasses.replace(config.optimizer, learning_rate=1e-30)
    train(dataclasses.replace(config, optimizer=still, train=training(length=32, batch_size=4, steps=3)), tmp_path)
    assert f"from run {ID}" in capsys.readouterr().out
    before, after = parameters(runs / ID), parameters(tmp_path)
    assert {name for name in before if name not in after} == {name for name in before if "bias" in name} != set()
    for name, array in after.items():
        np.testing.assert_allclose(array, before[name], atol=1e-25)
    assert [step for step, _ in losses(tmp_path)] == [1, 2, 3]
    assert json.loads((tmp_path / "config.json").read_text())["initial"] == {"run": str(runs / ID)}


def test_stopping_and_going_on_changes_no_bit_and_needs_the_start_no_more(runs, tmp_path, monkeypatch):
    config = start_from(runs, str(runs / ID), checkpoint=CheckpointConfig(every=2))
    train(config, tmp_path / "straight")
    moved = dataclasses.replace(config, initial=InitialConfig(f"moved/away/{ID}"))
    report = loop._report

    def stopping(config, pending, *rest):
        if pending[0] == 3:
            signal.raise_signal(signal.SIGTERM)
        return report(config, pending, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_report", stopping)
        with pytest.raises(Interrupted):
            train(config, tmp_path / "stopped")
    train(moved, tmp_path / "stopped")
    assert_same_run(tmp_path / "stopped", tmp_path / "straight")


@pytest.mark.parametrize(
    ("run", "changes", "words"),
    [
        ("ba9876543210", {}, r"initial\.run = 'ba9876543210': \S+ does not exist; only a finished run can be used"),
        ("unfinished", {}, r"initial\.run = '\S+': \S+ is not finished; only a finished run can be used"),
        (
            ID,
            {"model": MODEL.replace(position=T5(buckets=8))},
            r"bias has the shape \(2, 32, 2\) instead of \(2, 8, 2\)",
        ),
        (ID, {"model": MODEL.replace(embeddings="separate")}, r"do not fit config\.model: output_embedding is missing"),
        (ID, {"model": MODEL.replace(layers=3)}, r"has the shape .*; and \d+ more$"),
        (
            ID,
            {"tokenizer": ByteBPE(vocabulary_size=270)},
            r"was trained with another tokenizer \(\w{12}\) than this run's",
        ),
    ],
)
def test_what_cannot_be_started_from_is_refused_before_anything_is_written(runs, run, changes, words):
    (runs / "unfinished").mkdir(exist_ok=True)
    run = str(runs / run) if run == "unfinished" else run
    folder = runs / "fffffffffff0"
    with pytest.raises(InvalidInput, match=words) as refused:
        train(start_from(runs, run, **changes), folder)
    assert "\n" not in str(refused.value)
    assert saved_steps(folder / "checkpoints") == [] and not (folder / "config.json").exists()

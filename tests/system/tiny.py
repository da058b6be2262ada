"""A study that trains in a second: kilobytes of text, bytes as tokens, two layers of width 16; and its commands."""

import contextlib
import dataclasses
import importlib
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, NamedTuple

import numpy as np
import pytest

from experiments.command_line import run_command
from experiments.config import StudyConfig
from experiments.evaluation.config import EvaluationConfig
from models.config import ModelConfig
from train.checkpoints import CheckpointConfig, restore_parameters
from train.config import RunConfig, TrainingConfig
from train.corpora import Files
from train.data import DataConfig
from train.metrics import METRICS_FILE, read_metrics
from train.optimizers.adamw import AdamW
from train.schedules import Cosine
from train.tokenizers.byte import Byte

ROOT = Path(__file__).resolve().parents[2]
TOPICS = ("assert", "break", "continue", "del", "else", "global", "pass", "while")

CONFIG = """
from pathlib import Path

from tests.system.tiny import study_config
from train.configuration import to_config_dict

def get_config():
    return to_config_dict(study_config(Path(__file__).parent))

def get_sweep():
    return [{"model.position.name": name} for name in ("rope", "alibi")]
"""


def write_texts(folder: Path) -> Path:
    """Eight documents of about a kilobyte each."""
    texts = folder / "texts"
    texts.mkdir(parents=True, exist_ok=True)
    for name in TOPICS:
        (texts / f"{name}.txt").write_text(topics[name][:1200], "utf-8")
    return texts


def run_config(folder: Path, **changes: Any) -> RunConfig:
    """The configuration of a tiny run on the texts in `folder`; changes replace whole fields of it."""
    fields = {
        "model": ModelConfig(layers=2, width=16, heads=2),
        "tokenizer": Byte(),
        "data": DataConfig(corpus=Files(str(folder / "texts"))),
        "train": training(),
        "optimizer": AdamW(learning_rate=3e-3),
        "schedule": Cosine(warmup=2),
        "checkpoint": CheckpointConfig(every=4, keep=2),
    }
    return RunConfig(**fields | changes)


def training(**changes: Any) -> TrainingConfig:
    """Twelve steps of eight rows of 16 tokens, every one of them logged."""
    usual = TrainingConfig(length=16, batch_size=8, steps=12, log_every=1, evaluate_every=6, evaluation_batches=1)
    return dataclasses.replace(usual, **changes)


def study_config(folder: Path) -> StudyConfig:
    """The same run as a study, with a short evaluation."""
    run = run_config(folder)
    evaluation = EvaluationConfig(
        lengths=(16, 32), scalings=(), documents=2, tokens_per_document=100, final_tokens=8, resamples=20
    )
    fields = {field.name: getattr(run, field.name) for field in dataclasses.fields(RunConfig)}
    return StudyConfig(**fields, name="tiny", evaluation=evaluation)


def write_study(folder: Path) -> Path:
    """The texts and a configuration file with a sweep of two points; returns the file."""
    write_texts(folder)
    path = folder / "tiny.py"
    path.write_text(CONFIG)
    return path


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


def command(name: str, *arguments: Any) -> Ended:
    """Runs `python -m experiments.NAME` within this process."""
    main = importlib.import_module(f"experiments.{name}").main
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        # What a command sets for its own process is set back.
        patch.setattr(sys, "unraisablehook", sys.unraisablehook)
        patch.setattr(threading, "excepthook", threading.excepthook)
        try:
            run_command(main)
        except SystemExit as ending:
            status = ending.code if isinstance(ending.code, int) else 1
    return Ended(status, out.getvalue(), err.getvalue())


def start(name: str, *arguments: Any, devices: int = 1, **popen: Any) -> subprocess.Popen:
    """Starts `python -m experiments.NAME` as a process of its own, on so many virtual CPU devices."""
    flags = f"--xla_force_host_platform_device_count={devices}" if devices > 1 else ""
    return subprocess.Popen(
        [sys.executable, "-m", f"experiments.{name}", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **popen,
    )


def end(process: subprocess.Popen, seconds: float = 120) -> Ended:
    """Waits for a process."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return Ended(process.returncode, out, err)


def logged_steps(folder: Path) -> int:
    """The last step in the metrics of a run that may not have begun."""
    path = folder / METRICS_FILE
    lines = read_metrics(path) if path.exists() else []
    return lines[-1]["step"] if lines else 0


def losses(folder: Path) -> list[tuple[int, float]]:
    """Step and loss of every training line, in the order they were written."""
    return [(line["step"], line["loss"]) for line in read_metrics(folder / METRICS_FILE) if "loss" in line]


def held_out_losses(folder: Path) -> list[tuple[int, float]]:
    """Step and held-out loss of every look."""
    lines = read_metrics(folder / METRICS_FILE)
    return [(line["step"], line["held_out_loss"]) for line in lines if "held_out_loss" in line]


def parameters(folder: Path) -> dict[str, np.ndarray]:
    """Path to array of the newest checkpoint's parameters."""
    import jax

    _, tree, _ = restore_parameters(folder / "checkpoints")
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def assert_same_run(one: Path, other: Path) -> None:
    """Two run folders hold the same losses, looks and final parameters, bit for bit."""
    assert losses(one) == losses(other)
    assert held_out_losses(one) == held_out_losses(other)
    first, second = parameters(one), parameters(other)
    assert first.keys() == second.keys() and len(first) > 5
    for path, array in first.items():
        assert array.tobytes() == second[path].tobytes(), path


def one_line(text: str) -> str:
    """The single line of `text`, which must hold no other and no traceback."""
    lines = [line for line in text.splitlines() if not line.endswith(", once")]
    assert len(lines) == 1, text
    return lines[0]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file without the numbers that JSON does not know."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{path} holds {constant}")

    return json.loads(path.read_text(), parse_constant=refuse)

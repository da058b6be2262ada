"""What a run costs beside its steps: loop, metrics, checkpoints and data; and what a second start saves."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.harness import Contender, interleave, running
from experiments.benchmarks.table import Table
from experiments.command_line import use_compilation_cache
from models.config import ModelConfig
from train.batches import Batches
from train.checkpoints import CheckpointConfig
from train.config import RunConfig, TrainingConfig
from train.corpora import Files
from train.data import DataConfig, prepare
from train.loop import train
from train.metrics import METRICS_FILE, read_metrics
from train.schedules import Cosine
from train.sharding import build_mesh, put_batch
from train.step import Trainer
from train.tokenizers.byte import Byte

BARE, LOOP = "bare step", "loop"


@dataclass(frozen=True)
class Size:
    """A run of quickstart size, `steps` long, which saves every `every` steps; `rounds` of it and of bare steps."""

    layers: int = 4
    width: int = 128
    heads: int = 4
    length: int = 128
    batch: int = 32
    steps: int = 220
    every: int = 100
    bare_steps: int = 40
    rounds: int = 3

    def run_config(self, text: str) -> RunConfig:
        return RunConfig(
            model=ModelConfig(layers=self.layers, width=self.width, heads=self.heads),
            tokenizer=Byte(),
            data=DataConfig(corpus=Files(path=text)),
            train=TrainingConfig(
                length=self.length, batch_size=self.batch, steps=self.steps, evaluate_every=self.steps
            ),
            schedule=Cosine(warmup=1),
            checkpoint=CheckpointConfig(every=self.every),
        )


QUICK = Size(steps=110, bare_steps=20, rounds=1)


def measure(size: Size) -> list[Table]:
    """A table of the loop's overhead, and one of the seconds to a first step with an empty and a filled cache."""
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text"
        write_text(text)
        environment = {"LONGREACH_CACHE": f"{folder}/cache", "JAX_COMPILATION_CACHE_DIR": f"{folder}/programs"}
        arguments = {"size": asdict(size), "text": str(text)}
        starts = _starts(arguments, environment)
        return [_overhead(size, arguments, environment), starts]


def write_text(path: Path, characters: int = 2_000_000) -> None:
    """A text of random words, the same every time."""
    letters = np.random.default_rng(0).choice(np.frombuffer(b"etaoinshrdlu     ", np.uint8), characters)
    path.write_bytes(letters.tobytes())


def _overhead(size: Size, arguments: dict[str, Any], environment: dict[str, str]) -> Table:
    table = Table(
        f"A run against its bare steps: {size.layers} layers, width {size.width}, {size.batch} × {size.length} tokens, "
        f"{size.steps} steps, saved every {size.every}",
        {"": "", "seconds a step": ".4f", "over bare": ".1%", "waiting for data": ".2%"},
    )
    contenders = [
        Contender(name, f"{__name__}:{function}", arguments, environment=environment)
        for name, function in ((BARE, "bare"), (LOOP, "loop"))
    ]
    with running(contenders, table.notes) as built:
        figures = {name: timing.figures for name, timing in interleave(built, 1, size.rounds).items()}
    bare, loop = figures[BARE]["seconds"], figures[LOOP]["seconds"]
    table.add(BARE, bare, None, None)
    table.add(LOOP, loop, loop / bare - 1, figures[LOOP]["waited"] / loop)
    table.notes.append(
        "seconds of a clock, from the end of the first step to the end of the last; checkpoints are written in "
        "between, by threads of the same core"
    )
    return table


def _starts(arguments: dict[str, Any], environment: dict[str, str]) -> Table:
    table = Table("A run's compiled functions, built, and one step", {"cache of programs": "", "seconds": ".2f"})
    for name in ("empty", "filled"):
        start = Contender(name, f"{__name__}:first_step", arguments, environment=environment)
        with running([start], table.notes) as built:
            table.add(name, built[name].facts["seconds"])
    return table


def bare(size: dict[str, int], text: str) -> tuple[Callable[[int], dict[str, float]], dict[str, Any]]:
    """Steps on one batch and nothing beside them."""
    step = _first_step(size, text)

    def run(_: int) -> dict[str, float]:
        started = time.perf_counter()
        for _ in range(size["bare_steps"]):
            metrics = step()
        jax.block_until_ready(metrics)
        return {"seconds": (time.perf_counter() - started) / size["bare_steps"]}

    return run, {}


def first_step(size: dict[str, int], text: str) -> tuple[Callable[[int], None], dict[str, Any]]:
    """A contender that is measured while it is built. facts: seconds to the end of the first step."""
    config = Size(**size).run_config(text)
    prepare(config.data, config.tokenizer)
    started = time.perf_counter()
    _first_step(size, text)
    return lambda steps: None, {"seconds": time.perf_counter() - started}


def _first_step(size: dict[str, int], text: str) -> Callable[[], Any]:
    """Takes a step; the function returned takes one more each time and gives its metrics, not waited for."""
    use_compilation_cache()
    config = Size(**size).run_config(text)
    prepared = prepare(config.data, config.tokenizer)
    mesh = build_mesh(config.sharding.mesh)
    trainer = Trainer(config, config.filled_model(prepared.tokenizer.vocabulary_size), mesh)
    batches = Batches(
        prepared.train,
        length=config.train.length,
        batch_size=config.train.batch_size,
        packing=config.data.packing,
        seed=config.seed,
    )
    batch = put_batch(mesh, batches[0], config.sharding.rules)
    state = trainer.initial()

    def step() -> Any:
        nonlocal state
        state, metrics = trainer.step(state, batch)
        return metrics

    jax.block_until_ready(step())
    return step


def loop(size: dict[str, int], text: str) -> tuple[Callable[[int], dict[str, float]], dict[str, Any]]:
    """Whole runs by `train.loop.train`, each in a fresh folder."""
    use_compilation_cache()
    config = Size(**size).run_config(text)

    def run(_: int) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            train(config, Path(folder))
            lines = [line for line in read_metrics(Path(folder) / METRICS_FILE) if "data_wait_seconds" in line]
        first, last = lines[0], lines[-1]
        steps = last["step"] - first["step"]
        return {
            "seconds": (last["seconds"] - first["seconds"]) / steps,
            "waited": (last["data_wait_seconds"] - first["data_wait_seconds"]) / steps,
        }

    return run, {}

"""The training step: `Trainer.step` against an equal PyTorch model, eager and compiled."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.harness import Contender, Timing, fastest, interleave, running
from experiments.benchmarks.table import Table
from experiments.benchmarks.weights import load_weights, save_weights
from models.accounting import parameter_count, training_flops_per_token
from models.config import ModelConfig
from models.transformer import unroll_parameters
from train.config import RunConfig, TrainingConfig
from train.sharding import build_mesh, put_batch
from train.step import Trainer, TrainState

# Ours by how the layers loop (model.layer_loop).
OURS = {"longreach, scan": "scan", "longreach, unroll": "unroll"}
PEERS, PEAK = ("torch eager", "torch compile"), "matrix product"
# Relative difference of the first losses up to which two models in float32 count as the same.
SAME_LOSS = 1e-4


@dataclass(frozen=True)
class Size:
    """What is trained, and how long: `steps` a round, `rounds` of them."""

    layers: int = 6
    width: int = 384
    heads: int = 6
    length: int = 256
    batch: int = 12
    vocabulary: int = 8192
    peak: int = 2048  # rows of the square matrix product
    steps: int = 2
    rounds: int = 7

    def run_config(self) -> RunConfig:
        model = ModelConfig(vocabulary_size=self.vocabulary, layers=self.layers, width=self.width, heads=self.heads)
        return RunConfig(model=model, train=TrainingConfig(length=self.length, batch_size=self.batch))


QUICK = Size(rounds=3)


def measure(size: Size) -> list[Table]:
    """Tokens/s of each, the ratio to the fastest peer, and the share of the measured matrix-product peak.

    Raises RuntimeError where the contenders do not train the same model.
    """
    config = size.run_config()
    table = Table(
        f"Training step, float32: {size.layers} layers, width {size.width}, {size.batch} × {size.length} tokens, "
        f"vocabulary {size.vocabulary}, AdamW",
        {"": "", "tokens/s": ",.0f", "seconds": ".3f", "CPU-seconds": ".3f", "share of peak": ".1%", "ratio": ".2f"},
    )
    with tempfile.TemporaryDirectory() as folder:
        files = {"weights": str(Path(folder) / "weights.npz"), "batch": str(Path(folder) / "batch.npz")}
        own = [
            Contender(name, f"{__name__}:trainer", {"size": asdict(size), "layer_loop": layer_loop, **files})
            for name, layer_loop in OURS.items()
        ]
        settings = {
            "heads": size.heads,
            "epsilon": config.model.norm.epsilon,
            "clip": config.optimizer.clip,
            "decay": config.optimizer.weight_decay,  # type: ignore[attr-defined]
        }
        peers = [
            Contender(
                name,
                "experiments.benchmarks.torch_decoder:contender",
                {**files, **settings, "compiled": name == "torch compile"},
                peer=True,
            )
            for name in PEERS
        ]
        peak = Contender(PEAK, "experiments.benchmarks.matrix_product:contender", {"rows": size.peak})
        with running([*own, *peers, peak], table.notes) as contenders:
            ours = contenders["longreach, scan"].facts
            for name in (*OURS, *PEERS):
                if name in contenders:
                    _require_same(name, contenders[name].facts, ours)
            timings = interleave(contenders, size.steps, size.rounds)
    _fill(table, timings, size, config)
    table.notes.append(f"{ours['parameters']:,} parameters and the same first loss, {ours['loss']:.4f}, in each")
    return [table]


def _require_same(name: str, facts: dict[str, Any], ours: dict[str, Any]) -> None:
    if facts["parameters"] != ours["parameters"]:
        raise RuntimeError(f"{name} has {facts['parameters']} parameters, not {ours['parameters']}")
    if abs(facts["loss"] - ours["loss"]) > SAME_LOSS * ours["loss"]:
        raise RuntimeError(f"{name} starts at loss {facts['loss']}, not {ours['loss']}: it is another model")


def _fill(table: Table, timings: dict[str, Timing], size: Size, config: RunConfig) -> None:
    tokens = size.batch * size.length
    flops = tokens * training_flops_per_token(config.model, size.length)
    peak = 2 * size.peak**3 / timings[PEAK].cpu_seconds
    best = fastest(timings, PEERS)
    for name in (*OURS, *PEERS):
        if name in timings:
            spent = timings[name].cpu_seconds
            ratio = None if best is None else timings[best].cpu_seconds / spent
            table.add(name, tokens / spent, timings[name].seconds, spent, flops / spent / peak, ratio)
    table.notes.append(
        f"tokens/s by CPU-seconds; peak: {peak / 1e9:.0f} GFLOP/s, the {size.peak}³ matrix product in JAX; "
        f"ratio: to {best or 'the faster peer'}"
    )


def trainer(
    size: dict[str, int], layer_loop: str, weights: str, batch: str
) -> tuple[Callable[[int], None], dict[str, Any]]:
    """Our contender. facts: parameters, and the first loss.

    The scanned one leaves its first weights and its batch in files, from which all others start.
    """
    config = Size(**size).run_config()
    model = config.model.replace(layer_loop=layer_loop)
    mesh = build_mesh(config.sharding.mesh)
    trainer = Trainer(config, model, mesh)
    state = trainer.initial()
    rows: dict[str, Any] = random_batch(config)
    if layer_loop == "scan":
        save_weights(weights, state.parameters)
        np.savez(batch, **rows)
    else:
        shardings = jax.tree.map(lambda x: x.sharding, state.parameters)
        parameters = unroll_parameters(config.model, load_weights(weights))
        state = TrainState(state.step, jax.device_put(parameters, shardings), state.optimizer, state.skipped)
    on_device = put_batch(mesh, rows, config.sharding.rules)
    sums = trainer.evaluate(state.parameters, on_device)
    facts = {
        "parameters": parameter_count(state.parameters),
        "loss": float(sums["nats"]) / float(sums["weight"]),
    }

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, metrics = trainer.step(state, on_device)
        jax.block_until_ready((state, metrics))

    run(1)
    return run, facts


def random_batch(config: RunConfig) -> dict[str, np.ndarray]:
    """A batch as from contiguous windows of a text of random tokens."""
    shape = (config.train.batch_size, config.train.length + 1)
    text = np.random.default_rng(0).integers(0, config.model.vocabulary_size or 1, shape, np.int32)
    return {
        "tokens": text[:, :-1],
        "targets": text[:, 1:],
        "weights": np.ones((shape[0], shape[1] - 1), np.float32),
        "bytes": np.ones((shape[0], shape[1] - 1), np.int32),
    }

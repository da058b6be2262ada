"""Greedy decoding with a cache: `models.decoding.generate` against transformers' `generate`, with equal weights."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.harness import Contender, fastest, interleave, running
from experiments.benchmarks.table import Table
from experiments.benchmarks.weights import save_weights
from models.accounting import parameter_count
from models.config import FeedForwardConfig, ModelConfig
from models.decoding import generate
from models.sampling import Sampler
from models.transformer import init_parameters, unroll_parameters

OURS, PEERS = "longreach", ("transformers, dynamic cache", "transformers, static cache")


@dataclass(frozen=True)
class Size:
    """A Llama of about 14M parameters, `prompt` tokens read and `count` written, `calls` a round, `rounds` of them."""

    layers: int = 6
    width: int = 384
    heads: int = 6
    vocabulary: int = 8192
    batches: tuple[int, ...] = (1, 8)
    prompt: int = 16
    count: int = 128
    calls: int = 1
    rounds: int = 7

    def model(self) -> ModelConfig:
        # Pre-RMSNorm, SwiGLU and RoPE in half-split layout: what a Llama is.
        return ModelConfig(
            vocabulary_size=self.vocabulary,
            layers=self.layers,
            width=self.width,
            heads=self.heads,
            feed_forward=FeedForwardConfig("swiglu"),
        )


QUICK = Size(count=32, rounds=3)


def measure(size: Size) -> list[Table]:
    """New tokens/s of each and the ratio to the faster cache of transformers, for every batch size.

    Raises RuntimeError where the contenders do not write the same tokens.
    """
    table = Table(
        f"Greedy decoding, float32: {size.layers} layers, width {size.width}, {size.count} tokens after {size.prompt}",
        {"": "", "batch": "d", "tokens/s": ",.0f", "seconds": ".3f", "CPU-seconds": ".3f", "ratio": ".2f"},
    )
    for batch in size.batches:
        _one_batch(table, size, batch)
    table.notes.append("tokens/s by CPU-seconds, the prompt's time included; ratio: to the faster peer")
    return [table]


def _one_batch(table: Table, size: Size, batch: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        weights = str(Path(folder) / "weights.npz")
        prompts = np.random.default_rng(0).integers(0, size.vocabulary, (batch, size.prompt)).tolist()
        own = Contender(OURS, f"{__name__}:writer", {"size": asdict(size), "weights": weights, "prompts": prompts})
        shape = {"heads": size.heads, "epsilon": size.model().norm.epsilon, "count": size.count}
        peers = [
            Contender(
                name,
                "experiments.benchmarks.transformers_llama:contender",
                {"weights": weights, "prompts": prompts, **shape, "cache": name.split()[1]},
                peer=True,
            )
            for name in PEERS
        ]
        notes: list[str] = []
        with running([own, *peers], notes) as contenders:
            facts = {name: contender.facts for name, contender in contenders.items()}
            for name in PEERS:
                if name in facts and facts[name]["tokens"] != facts[OURS]["tokens"]:
                    raise RuntimeError(f"{name} writes other tokens than {OURS}: the models are not equal")
            timings = interleave(contenders, size.calls, size.rounds)
    best = fastest(timings, PEERS)
    for name, timing in timings.items():
        ratio = None if best is None else timings[best].cpu_seconds / timing.cpu_seconds
        tokens = batch * size.count / timing.cpu_seconds
        table.add(name, batch, tokens, timing.seconds, timing.cpu_seconds, ratio)
    same = f"batch {batch}: {facts[OURS]['parameters']:,} parameters"
    table.notes.append(same if best is None else f"{same}, the same {batch} × {size.count} tokens from each")
    table.notes.extend(note for note in notes if note not in table.notes)


def writer(
    size: dict[str, Any], weights: str, prompts: list[list[int]]
) -> tuple[Callable[[int], None], dict[str, Any]]:
    """Our contender, which leaves its weights in a file. facts: parameters, and the tokens written."""
    shape = Size(**size)
    config = shape.model()
    parameters = nn.meta.unbox(jax.jit(lambda: init_parameters(config, 0))())
    save_weights(weights, parameters)
    unrolled, plain = config.replace(layer_loop="unroll"), unroll_parameters(config, parameters)
    tokens = jnp.array(prompts, jnp.int32)

    def write() -> jax.Array:
        return generate(unrolled, Sampler(temperature=0), shape.count, plain, tokens, jnp.ones_like(tokens, bool), 0)

    def run(calls: int) -> None:
        for _ in range(calls):
            jax.block_until_ready(write())

    return run, {"parameters": parameter_count(parameters), "tokens": write().tolist()}

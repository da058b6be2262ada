"""Attention forward and backward: blockwise against our reference and PyTorch's fused kernel; every scheme and span."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks.harness import Contender, interleave, running
from experiments.benchmarks.table import Table
from models.attention import IMPLEMENTATIONS, AttentionRule, Visibility
from models.positions import PositionScheme
from models.positions.scheme import contiguous_tokens

OURS, REFERENCE, PEER = "blockwise", "reference", "torch scaled_dot_product_attention"
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Size:
    """One row of `heads` heads of `head_size`; contenders and the whole catalogue of schemes at `length`, some of them
    at each of `lengths`, spans at `span_length`.

    reference_limit: MiB up to which the reference's temporary memory is tried.
    """

    heads: int = 6
    head_size: int = 64
    length: int = 4096
    lengths: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384, 32768)
    schemes: tuple[str, ...] = ("none", "alibi", "t5", "rope")
    catalogue: tuple[str, ...] = tuple(PositionScheme.registry)
    span_length: int = 16384
    spans: tuple[str, ...] = tuple(Visibility.registry)
    reference_limit: int = 4096
    rounds: int = 7

    def arguments(self, scheme: str, length: int, span: str = "full") -> dict[str, Any]:
        return {"scheme": scheme, "span": span, "length": length, "heads": self.heads, "head_size": self.head_size}


QUICK = Size(lengths=(1024, 2048, 4096), catalogue=("none", "alibi", "fire", "cope"), span_length=4096, rounds=3)


def measure(size: Size) -> Iterator[Table]:
    """Tables of contenders without positions, of schemes and lengths, of the catalogue, and of spans."""
    yield _contenders(size)
    yield _schemes(size)
    title = f"Attention forward + backward, blockwise, by scheme: {size.heads} heads of {size.head_size}, L = "
    ours = {name: size.arguments(name, size.length) for name in dict.fromkeys(("none", *size.catalogue))}
    yield _against_first(f"{title}{size.length}", ours, size.rounds)
    title = f"Attention forward + backward, blockwise, by span at its defaults: {size.heads} heads of {size.head_size}"
    ours = {name: size.arguments("none", size.span_length, name) for name in dict.fromkeys(("full", *size.spans))}
    yield _against_first(f"{title}, L = {size.span_length}", ours, 1)


def _against_first(title: str, arguments: dict[str, dict[str, Any]], rounds: int) -> Table:
    """Our blockwise attention under different arguments, one at a time beside the first of them."""
    table = Table(title, {"": "", "CPU-seconds": ".3f", "MiB": ",.0f", "time of the first ×": ".3f"})
    first, *others = arguments
    for name in (first, *others):
        pair = [
            Contender(each, f"{__name__}:ours", {"implementation": OURS, **arguments[each]})
            for each in dict.fromkeys((first, name))
        ]
        with running(pair, table.notes) as contenders:
            timings = interleave(contenders, 1, rounds)
            spent = timings[name].cpu_seconds
            table.add(name, spent, contenders[name].facts["mebibytes"], spent / timings[first].cpu_seconds)
    return table


def _contenders(size: Size) -> Table:
    table = Table(
        f"Attention forward + backward, causal, float32: {size.heads} heads of {size.head_size}, L = {size.length}",
        {"": "", "seconds": ".3f", "CPU-seconds": ".3f", "MiB": ",.0f", "time of blockwise ×": ".2f"},
    )
    # The same masked product of all: no scheme changes it.
    common = size.arguments("none", size.length)
    own = [Contender(name, f"{__name__}:ours", {"implementation": name, **common}) for name in (OURS, REFERENCE)]
    peer = Contender(
        PEER,
        "experiments.benchmarks.torch_attention:contender",
        {"length": size.length, "heads": size.heads, "head_size": size.head_size},
        peer=True,
    )
    with running([*own, peer], table.notes) as contenders:
        timings = interleave(contenders, 1, size.rounds)
        for name, timing in timings.items():
            ratio = timing.cpu_seconds / timings[OURS].cpu_seconds
            table.add(name, timing.seconds, timing.cpu_seconds, contenders[name].facts.get("mebibytes"), ratio)
    table.notes.append("MiB: temporary memory of the compiled program; inputs and gradients are not in it")
    return table


def _schemes(size: Size) -> Table:
    table = Table(
        f"Attention forward + backward by scheme and length: {size.heads} heads of {size.head_size}, float32",
        {
            "scheme": "",
            "length": "d",
            "blockwise CPU-seconds": ".3f",
            "MiB": ",.0f",
            "reference CPU-seconds": ".3f",
            "reference MiB": ",.0f",
            "ratio": ".2f",
        },
    )
    for scheme in size.schemes:
        for length in size.lengths:
            arguments = size.arguments(scheme, length)
            limits = {OURS: None, REFERENCE: size.reference_limit}
            pair = [
                Contender(name, f"{__name__}:ours", {"implementation": name, "limit": limit, **arguments})
                for name, limit in limits.items()
            ]
            with running(pair, table.notes) as contenders:
                memory = {name: contender.facts["mebibytes"] for name, contender in contenders.items()}
                fits = {name: contender for name, contender in contenders.items() if contender.facts["fits"]}
                # Long runs need no repeats: what interrupts them is short beside them.
                timings = interleave(fits, 1, size.rounds if length <= size.length else 1)
            spent = {name: timing.cpu_seconds for name, timing in timings.items()}
            reference = spent.get(REFERENCE)
            ratio = None if reference is None else reference / spent[OURS]
            table.add(scheme, length, spent[OURS], memory[OURS], reference, memory[REFERENCE], ratio)
    table.notes.append(f"the reference is not run where it needs more than {size.reference_limit:,} MiB")
    return table


def ours(
    implementation: str, scheme: str, span: str, length: int, heads: int, head_size: int, limit: int | None = None
) -> tuple[Callable[[int], None], dict[str, Any]]:
    """Our contender. facts: MiB of temporary memory, and whether that fits the limit."""
    rule = AttentionRule(PositionScheme.registry[scheme](), Visibility.registry[span]())
    shape = (1, heads, length, head_size)
    q, k, v, cotangent = (jax.random.normal(key, shape) for key in jax.random.split(jax.random.key(0), 4))
    specs = rule.scheme.layer_parameters(heads, head_size)
    parameters = {name: spec.initializer(jax.random.key(1), spec.shape, jnp.float32) for name, spec in specs.items()}
    # A feature is a sum over tokens.
    features = {
        name: -jnp.cumsum(jax.random.uniform(jax.random.key(2), (1, length, *shape)), axis=1)
        for name, shape in rule.scheme.feature_shapes(heads).items()
    }
    where = contiguous_tokens(length)

    def rotate(x_BxHxLxK: jax.Array) -> jax.Array:
        return jnp.swapaxes(rule.scheme.rotate(jnp.swapaxes(x_BxHxLxK, 1, 2), where.position), 1, 2)

    def product(arguments):
        parameters, features, q, k, v = arguments
        tokens = dataclasses.replace(where, features=features)
        q, k = (rotate(x) for x in (q / head_size**0.5, k))
        output = IMPLEMENTATIONS[implementation](rule, parameters, q, k, v, tokens, tokens)
        return jnp.vdot(output, cotangent)

    inputs = (parameters, features, q, k, v)
    compiled = jax.jit(jax.grad(product)).lower(inputs).compile()
    memory: Any = compiled.memory_analysis()
    mebibytes = memory.temp_size_in_bytes / MEBIBYTE

    def run(steps: int) -> None:
        for _ in range(steps):
            jax.block_until_ready(compiled(inputs))

    fits = limit is None or mebibytes <= limit
    if fits:
        run(1)
    return run, {"mebibytes": mebibytes, "fits": fits}

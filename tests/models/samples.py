"""What the tests of this room share: every registered scheme with its fields filled in, and tiny compiled models."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from models.attention.visibility import (
    And,
    BlockSparse,
    Chunked,
    Dilated,
    Full,
    GlobalTokens,
    Or,
    Prefix,
    Sinks,
    Sliding,
    Strided,
    Visibility,
)
from models.cache import Cache, init_cache
from models.config import ModelConfig, NormConfig
from models.experts import Experts
from models.mixers import LatentMixer, LinearMixer, Mixer, SoftmaxMixer
from models.placements import Parallel, Placement
from models.positions import ALiBi, NoPosition, PositionScheme, Rotary, Scaling, Tokens
from models.positions.index import Index
from models.positions.temperature import Temperature
from models.transformer import Transformer, init_parameters, to_logits, unroll_parameters


def _quick_to_compile() -> dict:
    """Compiler options under which programs compile in a quarter of the time and compute the same, more slowly."""
    options = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda x: x, compiler_options=options)(0)
    except jax.errors.JaxRuntimeError:  # the compiler of jax 0.11 does not know the second
        del options["xla_cpu_use_fusion_emitters"]
    return options


# Compiling is most of the time here.
compiled = functools.partial(jax.jit, compiler_options=_quick_to_compile())

LENGTH = 12  # of the tiny models' texts
ORIGINAL_LENGTH = 5  # of the scalings, so that those texts are well beyond it
ROUND_TO = 2  # of dynamic NTK, so that they hold several lengths, some of which neighbours share
VOCABULARY = 23
# Head sizes other than width / heads, and fewer key heads than heads, so that nothing works by accident.
TINY = ModelConfig(vocabulary_size=VOCABULARY, layers=2, width=16, heads=4, kv_heads=2, head_size=6)


def filled(alternative: type, **values):
    """An instance of a registered class, with `values` for those of its fields that it has."""
    names = {field.name for field in dataclasses.fields(alternative)}
    return alternative(**{name: value for name, value in values.items() if name in names})


def _scaling(cls: type[Scaling]) -> Scaling:
    return filled(
        cls,
        factor=4.0,
        original_length=ORIGINAL_LENGTH,
        round_to=ROUND_TO,
        short_factor=(1.25,),
        long_factor=(4.0,),
    )


# Every registered index transform, such that it matters within those texts.
INDICES: dict[str, Index] = {
    name: filled(
        cls,
        window=3,
        step=2.0,
        group=2,
        original_length=ORIGINAL_LENGTH,
        local=2,
        sinks=1,
        factor=2.0,
        maximum=LENGTH + 9,
    )
    for name, cls in Index.registry.items()
}

TEMPERATURES: dict[str, Temperature] = {
    name: filled(cls, original_length=ORIGINAL_LENGTH, factor=4.0, value=1.5, floor_length=3)
    for name, cls in Temperature.registry.items()
}

# Every registered scheme; rotary positions under every registered scaling and index transform, and a bias under one.
SCHEMES: dict[str, PositionScheme] = (
    {
        name: filled(cls, length=LENGTH + 4, buckets=8, max_distance=16, max_position=3)
        for name, cls in PositionScheme.registry.items()
    }
    | {f"rope {name}": Rotary(scaling=_scaling(cls)) for name, cls in Scaling.registry.items() if name != "none"}
    | {f"rope {name}": Rotary(index=index) for name, index in INDICES.items() if name != "identity"}
    | {"alibi leaky_clipped": ALiBi(index=INDICES["leaky_clipped"])}
    | {"rope bfloat16": Rotary(angles="bfloat16")}
    | {"rope partial": Rotary(share=0.75), "rope proportional": Rotary(share=0.75, share_rule="proportional")}
)

# Every registered span, such that it hides something within those texts.
SPANS: dict[str, Visibility] = {
    "full": Full(),
    "sliding": Sliding(5),
    "sinks": Sinks(window=3, sinks=2),
    "dilated": Dilated(window=3, dilation=3),
    "strided": Strided(6),
    "block_sparse": BlockSparse(block=6, columns=2),
    "global_tokens": GlobalTokens(3),
    "chunked": Chunked(5),
    "prefix": Prefix(6),
    "and": And((Dilated(window=4, dilation=2), Chunked(7))),
    "or": Or((Sliding(2), GlobalTokens(1), Chunked(3))),
}

# Every registered mixer, and what changes one's arithmetic; sizes unlike each other, chunks within those texts.
MIXERS: dict[str, Mixer] = {
    name: filled(cls, rank=5, rotary_size=4, value_size=3, chunk=5) for name, cls in Mixer.registry.items()
} | {
    "softmax query_key_norm": SoftmaxMixer(query_key_norm="rms"),
    "softmax sink": SoftmaxMixer(sink="learned"),
    "softmax soft_cap": SoftmaxMixer(soft_cap=0.5),
    "latent query_rank": LatentMixer(query_rank=7),
    "linear relu": LinearMixer(feature_map="relu"),
}

# Every registered norm placement, such that its fields matter in two layers.
PLACEMENTS: dict[str, Placement] = {
    name: filled(cls, share=0.5, scale=0.7, initial=0.5) for name, cls in Placement.registry.items()
} | {"parallel, two norms": Parallel(norms=2)}


def placed(placement: Placement) -> ModelConfig:
    """The tiny model with that placement, without positions, and with an input embedding of its own."""
    return TINY.replace(position=NoPosition(), embeddings="separate", norm=NormConfig(placement=placement))


# Every registered mixture of experts that a decoder may have, such that in training some choices are dropped.
EXPERTS: dict[str, Experts] = {
    name: filled(cls, count=4, width=10, shared=1, capacity_factor=0.75)
    for name, cls in Experts.registry.items()
    if cls.causal and name != "none"
}


def random(*shape: int, seed: int = 0, dtype=jnp.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def relative_error(got, wanted) -> float:
    """The largest difference of two trees of arrays, as a share of the largest entry of the wanted array."""
    assert jax.tree.structure(got) == jax.tree.structure(wanted)

    def error(x, y):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        assert x.shape == y.shape
        return np.abs(x - y).max(initial=0.0) / max(np.abs(y).max(initial=0.0), 1e-30)

    return max((float(error(x, y)) for x, y in zip(*map(jax.tree.leaves, (got, wanted)), strict=True)), default=0.0)


@functools.cache
def parameters_of(config: ModelConfig) -> dict:
    """Random parameters, larger than fresh ones, so that everything matters; equal for both layer loops."""
    scanned = config.replace(layer_loop="scan", rematerialize="none")
    shapes = nn.meta.unbox(jax.eval_shape(lambda: init_parameters(scanned, 0)))
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        center = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(center + 0.3 * rng.normal(size=leaf.shape), leaf.dtype)

    parameters = jax.tree_util.tree_map_with_path(fill, shapes)
    return parameters if config.layer_loop == "scan" else unroll_parameters(config, parameters)


def tokens_at(position, document=None) -> Tokens:
    position = jnp.asarray(position, jnp.int32)
    return Tokens(position, jnp.zeros_like(position) if document is None else jnp.asarray(document, jnp.int32))


def whole(rows: int, length: int = LENGTH) -> Tokens:
    """Every row one document from position 0."""
    return tokens_at(np.tile(np.arange(length), (rows, 1)))


def text(rows: int, length: int = LENGTH, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, VOCABULARY, (rows, length)), jnp.int32)


def apply(config: ModelConfig, parameters: dict, tokens_BxL: jax.Array, where: Tokens) -> jax.Array:
    """Logits [B, L, V] without a cache."""
    hidden, _ = Transformer(config).apply({"params": parameters}, tokens_BxL, where)
    return to_logits(config, parameters, hidden)


full_logits = compiled(apply, static_argnums=0)


@functools.partial(compiled, static_argnums=0)
def logits_and_gradient(config: ModelConfig, parameters: dict, tokens_BxL, where, weight_BxLxV):
    """Logits [B, L, V], and the gradient of their weighted sum with respect to the parameters."""
    logits, pull = jax.vjp(lambda p: apply(config, p, tokens_BxL, where), parameters)
    return logits, pull(weight_BxLxV)[0]


@functools.partial(compiled, static_argnums=0)
def extend(config: ModelConfig, parameters: dict, cache: Cache, tokens_BxL, where: Tokens) -> tuple[jax.Array, Cache]:
    """Logits [B, L, V] of tokens that join those in the cache."""
    hidden, cache = Transformer(config).apply({"params": parameters}, tokens_BxL, where, cache)
    return to_logits(config, parameters, hidden), cache


def empty_cache(config: ModelConfig, rows: int, capacity: int = LENGTH) -> Cache:
    return init_cache(config, rows, capacity)


def logits_in_halves(config: ModelConfig) -> np.ndarray:
    """Logits of `text(2)`, of which a cache takes one half after the other."""
    cache, parts = empty_cache(config, 2), []
    for start in (0, LENGTH // 2):
        stop = start + LENGTH // 2
        where = tokens_at(np.tile(np.arange(start, stop), (2, 1)))
        logits, cache = extend(config, parameters_of(config), cache, text(2)[:, start:stop], where)
        parts.append(logits)
    return np.concatenate(parts, axis=1)

"""A decoder-only transformer: embeddings, a scanned stack of blocks, and the hidden states that logits come from."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.cache import Cache, occupy
from models.config import ModelConfig
from models.errors import invalid
from models.experts import ExpertLayer, Mixture
from models.experts.layer import COLLECTION
from models.feed_forward import FeedForward, FeedForwardKind
from models.norms import make_norm
from models.parameters import parameter, scheme_parameters
from models.placements import Layer
from models.positions import Tokens

Array = jax.Array


class Block(nn.Module):
    """One layer: its mixer and feed-forward, put together by the configured norm placement."""

    config: ModelConfig
    index: int  # place in the layer pattern
    deterministic: bool  # without dropout and without capacities of experts

    @nn.compact
    def __call__(self, x_BxLxD, tokens, cache, slots, start, number=None):
        config = self.config
        placement = config.norm.placement
        gains = placement.gains(config.layers)
        norm = make_norm(config.norm.name, config.norm.epsilon)
        drop = nn.Dropout(config.dropout, deterministic=self.deterministic)

        def attention(x):
            nonlocal cache
            module = config.layer_mixer(self.index).module(config, self.index)
            output, cache = module(x, tokens, cache, slots, start)
            return drop(output)

        def feed_forward(x):
            kind = FeedForwardKind(
                activation=config.feed_forward.name,
                bias=config.feed_forward.bias,
                dtype=config.compute_dtype,
                input_gain=gains.inner,
                output_gain=gains.output,
            )
            experts = config.layer_experts(self.index)
            if not isinstance(experts, Mixture):
                return drop(FeedForward(kind, config.feed_forward_width, name="feed_forward")(x))
            width, training = config.expert_width(experts), not self.deterministic
            layer = ExpertLayer(experts, kind, width, training, name="feed_forward")
            return drop(layer(x, tokens.document >= 0))

        sublayers = {"attention": attention, "feed_forward": feed_forward}
        learned = scheme_parameters(self, "residual", placement.parameters(config.width, tuple(sublayers)))
        layer = Layer(sublayers, lambda name: norm(name=name), learned, number, config.layers)
        x_BxLxD = placement.apply(x_BxLxD, layer)
        # Asked for by who makes this collection mutable; never traced otherwise.
        if self.is_mutable_collection("telemetry"):
            mean_square = jnp.mean(jnp.square(x_BxLxD.astype(jnp.float32)))
            self.sow("telemetry", "mean_square", mean_square, init_fn=lambda: 0.0, reduce_fn=lambda _, new: new)
        return x_BxLxD, cache


class Unit(nn.Module):
    """One repetition of the layer pattern: what the stack scans over."""

    config: ModelConfig
    count: int  # layers of the pattern in this unit: all, or fewer in a last, incomplete one
    deterministic: bool

    @nn.compact
    def __call__(self, x_BxLxD, caches, first, tokens, slots, start):
        kept = []
        for index in range(self.count):
            block = Block(self.config, index, self.deterministic, name=f"layer_{index}")
            cache = None if caches is None else caches[index]
            number = None if first is None else first + index
            x_BxLxD, cache = block(x_BxLxD, tokens, cache, slots, start, number)
            kept.append(cache)
        return x_BxLxD, None if caches is None else tuple(kept)


class Transformer(nn.Module):
    """tokens int32 [B, L] -> hidden states [B, L, D] in the compute dtype, after the final norm; and the cache.

    With a cache, the L tokens take its next free slots and see everything already in it. `output_matrix` of the
    parameters turns hidden states into logits, outside, so that a loss can do it in chunks.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        tokens_BxL: Array,
        where: Tokens,
        cache: Cache | None = None,
        deterministic: bool = True,
    ) -> tuple[Array, Cache | None]:
        config = self.config
        config.require_length("length", tokens_BxL.shape[1])
        index = config.drawn_index()
        if index is not None:
            key = jax.random.key(0) if deterministic else self.make_rng("positions")
            length = tokens_BxL.shape[1] if cache is None else cache.capacity
            drawn = index.draw(key, where.position, tokens_BxL.shape[0], length, training=not deterministic)
            where = dataclasses.replace(where, drawn=drawn)
        x_BxLxD = self._embed(tokens_BxL, where)
        x_BxLxD = nn.Dropout(config.dropout, deterministic=deterministic)(x_BxLxD)

        start, slots = None, None
        if cache is not None:
            start = cache.filled
            cache = occupy(cache, where)
            slots = cache.tokens
        x_BxLxD, layers = self._stack(x_BxLxD, cache, where, slots, start, deterministic)
        if cache is not None:
            cache = dataclasses.replace(cache, layers=layers)
        if config.norm.placement.final_norm:
            x_BxLxD = make_norm(config.norm.name, config.norm.epsilon)(name="final_norm")(x_BxLxD)
        return x_BxLxD, cache

    def _embed(self, tokens_BxL: Array, where: Tokens) -> Array:
        config = self.config

        # Small rows let a tied output start near uniform; scaled by √D (Vaswani et al. 2017, section 3.4), tokens
        # reach the size of what sinusoids add. Learned tables begin at 0.02: begun as large as tokens, they were behind
        # by 0.03 to 0.05 bits per byte after 400 steps.
        def table(name: str) -> Array:
            rows = nn.initializers.normal(0.02)
            return parameter(self, name, rows, ("vocabulary", "embed"), (config.vocabulary, config.width))

        embedding_VxD = table("embedding")
        if config.embeddings == "separate":
            table("output_embedding")
        x_BxLxD = embedding_VxD[tokens_BxL] * math.sqrt(config.width)
        for scheme in config.schemes():
            parameters = scheme_parameters(self, f"position_{scheme.name}", scheme.embedding_parameters(config.width))
            added = scheme.embed(parameters, scheme.place(where), config.width)
            if added is not None:
                x_BxLxD = x_BxLxD + added
        return x_BxLxD.astype(config.compute_dtype)

    def _stack(self, x_BxLxD, cache, where, slots, start, deterministic):
        config = self.config
        pattern = len(config.pattern)
        repeats, rest = divmod(config.layers, pattern)
        layers = None if cache is None else cache.layers
        shared = (where, slots, start)
        unit = _rematerialized(config.rematerialize, scanned=False)
        kept: list[Any] = []

        def part(first: int, count: int):
            return None if layers is None else layers[first : first + count]

        # The number of each unit's first layer, where a layer needs to know its own.
        numbers = None
        if config.norm.placement.counts_layers:
            numbers = jnp.arange(0, config.layers, pattern, dtype=jnp.int32)

        def number(unit: int):
            return None if numbers is None else numbers[unit]

        if config.layer_loop == "scan":
            scanned = nn.scan(
                _rematerialized(config.rematerialize, scanned=True),
                variable_axes={"params": 0, "telemetry": 0, COLLECTION: 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=(0, 0, nn.broadcast, nn.broadcast, nn.broadcast),
                length=repeats,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            x_BxLxD, new = scanned(config, pattern, deterministic, name="units")(
                x_BxLxD, part(0, pattern), None if numbers is None else numbers[:repeats], *shared
            )
            kept += new or ()
            first = pattern
        else:
            for i in range(repeats):
                x_BxLxD, new = unit(config, pattern, deterministic, name=f"unit_{i}")(
                    x_BxLxD, part(i * pattern, pattern), number(i), *shared
                )
                kept += new or ()
            first = repeats * pattern
        if rest:
            x_BxLxD, new = unit(config, rest, deterministic, name="last_unit")(
                x_BxLxD, part(first, rest), number(repeats), *shared
            )
            kept += new or ()
        return x_BxLxD, tuple(kept)


def _rematerialized(policy: str, scanned: bool) -> type[nn.Module]:
    if policy == "none":
        return Unit
    saved = {"full": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}[policy]
    # Outside a loop the compiler would find what is computed again to be common with the forward pass, and keep it.
    return nn.remat(Unit, policy=saved, prevent_cse=not scanned)


def output_matrix(config: ModelConfig, parameters: dict[str, Any]) -> Array:
    """The matrix [V, D] whose rows' products with a hidden state are the logits."""
    return parameters["embedding" if config.embeddings == "tied" else "output_embedding"]


def to_logits(config: ModelConfig, parameters: dict[str, Any], hidden: Array) -> Array:
    """Logits, float32 [..., V], of hidden states [..., D], soft-capped where configured (Gemma 2)."""
    matrix = output_matrix(config, parameters).astype(hidden.dtype)
    flat = jnp.einsum("nd,vd->nv", hidden.reshape(-1, hidden.shape[-1]), matrix, preferred_element_type=jnp.float32)
    if config.logit_soft_cap:
        flat = config.logit_soft_cap * jnp.tanh(flat / config.logit_soft_cap)
    return flat.reshape(*hidden.shape[:-1], -1)


def init_parameters(config: ModelConfig, seed: int) -> dict[str, Any]:
    """Fresh parameters: a plain nested dict of float32 arrays, boxed with their logical axes (see nn.meta)."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    where = Tokens(position=tokens, document=tokens)
    # Parameters do not depend on the implementation, and the fused one refuses what is no whole document.
    return Transformer(config.replace(attention="reference")).init(jax.random.key(seed), tokens, where)["params"]


def unroll_parameters(config: ModelConfig, parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a scanned stack as those of the same stack with layer_loop = "unroll"."""
    if "units" not in parameters:
        return parameters
    unrolled = {name: value for name, value in parameters.items() if name != "units"}
    for i in range(config.layers // len(config.pattern)):
        unrolled[f"unit_{i}"] = jax.tree.map(lambda stacked: stacked[i], parameters["units"])  # noqa: B023
    return unrolled


def regroup_parameters(config: ModelConfig, parameters: dict[str, Any], pattern: int) -> dict[str, Any]:
    """The parameters of a stack as those of a scanned one whose repeating unit is `pattern` layers long.

    So a checkpoint can be read under another layer pattern. Raises InvalidInput where layers that would share a place
    of the pattern hold different parameters.
    """
    unrolled = unroll_parameters(config, parameters)
    units = [f"unit_{i}" for i in range(config.layers // len(config.pattern))] + ["last_unit"]
    layers = [unrolled[unit][f"layer_{i}"] for unit in units if unit in unrolled for i in range(len(unrolled[unit]))]
    regrouped = {name: value for name, value in unrolled.items() if name not in units}
    repeats = config.layers // pattern
    try:
        regrouped["units"] = {
            f"layer_{i}": jax.tree.map(lambda *same: jnp.stack(same), *layers[i : repeats * pattern : pattern])
            for i in range(pattern)
        }
    except ValueError:
        raise invalid("pattern", f"{pattern} layers", "one whose repeated layers hold the same parameters") from None
    if repeats * pattern < config.layers:
        regrouped["last_unit"] = {f"layer_{i}": layer for i, layer in enumerate(layers[repeats * pattern :])}
    return regrouped

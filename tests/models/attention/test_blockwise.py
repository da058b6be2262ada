"""Tile by tile is the same function as all at once, in values and gradients, at linear memory."""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.attention import (
    AttentionRule,
    Full,
    Sliding,
    Tiles,
    Visibility,
    blockwise_attention,
    reference_attention,
    visible,
)
from models.positions import ALiBi, NoPosition, PositionScheme, Tokens
from models.positions.cope import CoPE
from models.positions.deberta import DeBERTa
from models.positions.forgetting import Forgetting
from models.positions.sandwich import Sandwich
from models.positions.scheme import ParameterSpec, contiguous_tokens, weigh_values
from models.positions.shaw import Shaw
from tests.models.samples import SCHEMES, compiled, filled, random, relative_error

HEADS, SIZE, ROWS = 4, 8, 2
# What can change logits differently: of the schemes that leave them alone, one stands for all. Some once more with
# tables so small that most distances are beyond them.
CHANGING = {name: scheme for name, scheme in SCHEMES.items() if not scheme.plain_logits()} | {
    "none": NoPosition(),
    "shaw 4": Shaw(max_distance=4),
    "deberta 8": DeBERTa(max_distance=8, buckets=4),
    "deberta 5": DeBERTa(max_distance=5, buckets=None),
}


@dataclass(frozen=True)
class Featured(PositionScheme):
    """A number per token and head on either side: how sharp a query is, how present a key."""

    def change_logits(self, parameters, logits_BxHxQxT, tile):
        sharpness_BxHxQ = jnp.moveaxis(tile.query.features["sharpness"], -1, 1)
        presence_BxHxT = jnp.moveaxis(tile.key.features["presence"], -1, 1)
        return logits_BxHxQxT * sharpness_BxHxQ[..., None] + presence_BxHxT[:, :, None]


@functools.partial(compiled, static_argnums=(0, 1))
def both(rule: AttentionRule, tiles: Tiles, learned, q, k, v, query: Tokens, key: Tokens, weight):
    """(values, gradients) of the reference and of the blockwise attention. Everything differentiable is in `learned`,
    the features of both sides, q, k and v."""

    def evaluate(attention):
        def function(learned, q, k, v, query_features, key_features):
            # The queries are the last of the keys' tokens: what a key has, they have.
            shared = {name: value[:, value.shape[1] - q.shape[2] :] for name, value in key_features.items()}
            queries, keys = query.replace(features=shared | query_features), key.replace(features=key_features)
            return attention(rule, learned, q, k, v, queries, keys)

        values, pull = jax.vjp(function, learned, q, k, v, query.features, key.features)
        return values, pull(weight)

    return evaluate(reference_attention), evaluate(functools.partial(blockwise_attention, tiles=tiles))


@dataclass(frozen=True)
class Counting(PositionScheme):
    """Every visible key counts one, so that sums over newer keys are distances: ALiBi by another way."""

    def accumulate(self, parameters, logits_BxHxQxT, tile):
        return jnp.ones_like(logits_BxHxQxT)

    def change_logits(self, parameters, logits_BxHxQxT, tile):
        return logits_BxHxQxT - 0.25 * (tile.accumulated_BxHxQxT - 1)


@dataclass(frozen=True)
class Penalty(PositionScheme):
    """A quarter per token of distance."""

    def change_logits(self, parameters, logits_BxHxQxT, tile):
        return logits_BxHxQxT - 0.25 * self.distance(tile)[:, None]


@dataclass(frozen=True)
class Fading(PositionScheme):
    """Values count less the farther they are, by a learned rate; and it sees of a tile what `weigh` may see."""

    def layer_parameters(self, heads, head_size):
        return {"rate": ParameterSpec((heads,), jax.nn.initializers.ones, ("heads",))}

    def weigh(self, parameters, weights_BxHxQxT, v_BxGxTxK, tile):
        assert tile.q_BxHxQxK is None and tile.k_BxGxTxK is None and not tile.query.features and not tile.key.features
        rate_Hx1x1 = jnp.square(parameters["rate"])[:, None, None]
        faded = weights_BxHxQxT * jnp.exp(-0.1 * rate_Hx1x1 * jnp.maximum(self.distance(tile), 0)[:, None])
        return weigh_values(faded, v_BxGxTxK)


def evaluate(scheme, span, tiles, query: Tokens, key: Tokens, groups=2, seed=0, dtype=jnp.float32):
    """`both`, on random vectors and features; keys and queries scaled and rotated as the model does."""
    learned = {
        name: random(*spec.shape, seed=seed + 5 + i)
        for i, (name, spec) in enumerate(scheme.layer_parameters(HEADS, SIZE).items())
    }
    q, weight = (random(ROWS, HEADS, query.position.shape[1], SIZE, seed=seed + i) for i in (0, 1))
    k, v = (random(ROWS, groups, key.position.shape[1], SIZE, seed=seed + i) for i in (2, 3))

    def rotate(x, tokens):
        return jnp.swapaxes(scheme.rotate(jnp.swapaxes(x, 1, 2), scheme.place(tokens)), 1, 2)

    q, k = rotate(q / np.sqrt(SIZE).astype(np.float32), query), rotate(k, key)
    features = {
        name: random(ROWS, key.position.shape[1], *shape, seed=seed + 20 + i)
        for i, (name, shape) in enumerate(scheme.feature_shapes(HEADS).items())
    }
    key = key.replace(features=key.features | features)
    return both(
        AttentionRule(scheme, span),
        tiles,
        learned,
        *(x.astype(dtype) for x in (q, k, v)),
        query,
        key,
        weight.astype(dtype),
    )


def agree(wanted, got, span: Visibility, query: Tokens, key: Tokens) -> bool:
    """Whether values and gradients are the same to 1e-5.

    Learned numbers' gradients sum over all pairs, and one alone may cancel: they are compared as one vector. Where few
    queries see two keys, gradients of logits are little but rounding, and only that of `v` is compared.
    """
    if (visible(span, query, key).sum(-1) >= 2).sum() < 8:
        wanted, got = ((values, gradients[3]) for values, gradients in (wanted, got))
    else:
        wanted, got = (
            (values, jax.flatten_util.ravel_pytree(gradients[0])[0], gradients[1:])
            for values, gradients in (wanted, got)
        )
    return relative_error(got, wanted) < 1e-5


def packed(rows: list[list[tuple[bool, int]]], length: int) -> Tokens:
    """Rows of consecutive documents, cut or padded to `length`; a document that is not real is padding (-1)."""
    position, document = np.zeros((len(rows), length), np.int32), np.full((len(rows), length), -1, np.int32)
    for row, documents in enumerate(rows):
        start = 0
        for number, (real, count) in enumerate(documents):
            end = min(start + count, length)
            position[row, start:end] = np.arange(end - start)
            document[row, start:end] = number if real else -1
            start = end
    return Tokens(jnp.asarray(position), jnp.asarray(document))


DOCUMENTS = st.lists(
    st.lists(st.tuples(st.booleans() | st.just(True), st.integers(1, 25)), max_size=6), min_size=ROWS, max_size=ROWS
)


class Shape(NamedTuple):
    """What an attention is compiled for: the last `queries` of `keys` tokens ask."""

    queries: int
    keys: int
    window: int
    groups: int
    tiles: Tiles


def shape_of(name: str) -> Shape:
    """Of each name another, and always the same: lengths that divide by neither tile, a window that hides some of the
    keys, and two or four heads that share a key."""
    rng = np.random.default_rng(list(name.encode()))
    tiles = Tiles(*map(int, rng.integers(4, 9, 2)))
    queries = 3 * tiles.query + int(rng.integers(1, tiles.query))
    keys = queries + int(rng.integers(1, 9))
    keys += keys % tiles.key == 0
    return Shape(queries, keys, int(rng.integers(3, keys - 3)), int(rng.choice([1, 2])), tiles)


@pytest.mark.parametrize("name", CHANGING)
@given(rows=DOCUMENTS, seed=st.integers(0, 2**16))
@example(rows=[[(True, 9), (True, 40)], [(False, 3), (True, 40)]], seed=0)
@example(rows=[[], [(True, 5), (False, 2), (True, 6), (True, 40)]], seed=0)
@settings(max_examples=6)
def test_every_scheme_over_documents_and_padding_in_a_window(name, rows, seed):
    """Rows of several documents, that are padding alone, on the left, in between or on the right."""
    shape = shape_of(name)
    assert shape.queries % shape.tiles.query and shape.keys % shape.tiles.key and shape.window < shape.keys - 3
    key = packed(rows, shape.keys)
    query = jax.tree.map(lambda x: x[:, shape.keys - shape.queries :], key)
    span = Sliding(shape.window)
    wanted, got = evaluate(CHANGING[name], span, shape.tiles, query, key, shape.groups, seed)
    assert agree(wanted, got, span, query, key)


@settings(max_examples=4)
@given(
    name=st.sampled_from(sorted(CHANGING)),
    lengths=st.tuples(st.integers(1, 40), st.integers(0, 15)),
    window=st.none() | st.integers(1, 30),
    groups=st.sampled_from([1, 2, 4]),
    tiles=st.builds(Tiles, st.integers(1, 16), st.integers(1, 16)),
    rows=DOCUMENTS,
    seed=st.integers(0, 2**16),
)
@example(name="alibi", lengths=(1, 0), window=None, groups=4, tiles=Tiles(), rows=[[(True, 1)]] * 2, seed=0)
@example(name="t5", lengths=(1, 30), window=7, groups=1, tiles=Tiles(8, 8), rows=[[(True, 31)]] * 2, seed=1)
def test_lengths_windows_groups_and_tiles(name, lengths, window, groups, tiles, rows, seed):
    """The queries are the last `lengths[0]` of the keys, as when decoding or prefilling in chunks."""
    queries, earlier = lengths
    key = packed(rows, queries + earlier)
    query = jax.tree.map(lambda x: x[:, earlier:], key)
    span = Full() if window is None else Sliding(window)
    wanted, got = evaluate(CHANGING[name], span, tiles, query, key, groups, seed)
    assert agree(wanted, got, span, query, key)


def test_sums_run_over_visible_keys_alone_from_the_newest_on():
    """Across tiles and within, whatever else stands in a row; in the reference and in tiles."""
    span = Sliding(6)
    tokens = packed([[(True, 13), (False, 2), (True, 8)], [(False, 2), (True, 19)]], 23)
    wanted, _ = evaluate(Penalty(), span, Tiles(8, 8), tokens, tokens)
    for counted in evaluate(Counting(), span, Tiles(7, 4), tokens, tokens):
        assert relative_error(counted, wanted) < 1e-5


def test_a_scheme_that_weighs_values_its_own_way():
    tokens = packed([[(True, 13), (True, 8)], [(False, 2), (True, 19)]], 21)
    wanted, got = evaluate(Fading(), Full(), Tiles(4, 8), tokens, tokens)
    assert relative_error(got, wanted) < 1e-5
    assert np.abs(got[1][0]["rate"]).max() > 0.01
    plain, _ = evaluate(NoPosition(), Full(), Tiles(4, 8), tokens, tokens)
    assert relative_error(got[0], plain[0]) > 0.1


@pytest.mark.parametrize("name", Visibility.registry)
def test_every_span(name):
    span = filled(Visibility.registry[name], window=6)
    tokens = packed([[(True, 20), (True, 17)], [(True, 37)]], 37)
    scheme = ALiBi() if span.is_causal() else Sandwich()  # whose formula is of later keys too
    wanted, got = evaluate(scheme, span, Tiles(8, 8), tokens, tokens)
    assert relative_error(got, wanted) < 1e-5


def test_rows_that_see_nothing_are_zero_and_have_no_gradient():
    tokens = packed([[(False, 3), (True, 7), (False, 10)], [(False, 20)]], 20)
    unseen = np.asarray(tokens.document) < 0
    for values, (_, d_q, d_k, d_v, _, _) in evaluate(ALiBi(), Full(), Tiles(4, 4), tokens, tokens):
        for x in (values, d_q, d_k, d_v):
            assert np.isfinite(x).all()
            assert (np.moveaxis(np.asarray(x), 1, 2)[unseen] == 0).all()
        assert np.abs(values).max() > 0.1 and np.abs(d_q).max() > 0.1


def test_features_of_each_token_get_gradients():
    tokens = packed([[(True, 13), (True, 8)], [(False, 2), (True, 19)]], 21)
    query, key = (
        tokens.replace(features={name: random(ROWS, 21, HEADS, seed=seed)})
        for name, seed in (("sharpness", 8), ("presence", 9))
    )
    wanted, got = evaluate(Featured(), Full(), Tiles(4, 8), query, key)
    assert relative_error(got, wanted) < 1e-5
    d_query, d_key = got[1][-2:]
    assert np.abs(d_query["sharpness"]).max() > 0.1 and np.abs(d_key["presence"]).max() > 0.1


def test_bfloat16_stays_within_two_hundredths_of_float32():
    tokens = packed([[(True, 48)], [(True, 20), (True, 28)]], 48)
    wanted, _ = evaluate(ALiBi(), Full(), Tiles(16, 16), tokens, tokens)
    _, got = evaluate(ALiBi(), Full(), Tiles(16, 16), tokens, tokens, dtype=jnp.bfloat16)
    assert got[0].dtype == got[1][1].dtype == jnp.bfloat16
    assert relative_error(got, wanted) < 0.02


def test_tiles_that_nobody_sees_are_not_computed():
    """A tile of padding full of NaN would spoil every sum that it entered, even at weight 0."""
    tokens = packed([[(True, 24)]] * ROWS, 32)
    poison = jnp.where(jnp.arange(32) < 24, 1.0, jnp.nan)[:, None]
    q, k, v = (random(ROWS, h, 32, SIZE, seed=h) for h in (HEADS, 2, 2))
    rule = AttentionRule(ALiBi(), Full())

    def total(q, k, v):
        return blockwise_attention(rule, {}, q, k, v, tokens, tokens, Tiles(8, 8))[:, :, :24].sum()

    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(q, k * poison, v * poison)
    assert np.isfinite(value)
    for gradient in gradients:
        assert np.isfinite(gradient).all()


def needed_bytes(length: int, gradients: bool, jit, scheme: PositionScheme = ALiBi()) -> int:
    """Of the compiled program, beside its inputs."""
    rule, tokens = AttentionRule(scheme, Full()), contiguous_tokens(length)

    def forward(learned, features, q, k, v):
        where = tokens.replace(features=features)
        return blockwise_attention(rule, learned, q, k, v, where, where)

    def backward(learned, features, q, k, v, weight):
        return jax.vjp(forward, learned, features, q, k, v)[1](weight)

    def numbers(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    x = numbers(1, 4, length, 32)
    learned = {name: numbers(*spec.shape) for name, spec in scheme.layer_parameters(4, 32).items()}
    features = {name: numbers(1, length, *shape) for name, shape in scheme.feature_shapes(4).items()}
    arguments = (learned, features, x, x, x)
    lowered = jit(backward).lower(*arguments, x) if gradients else jit(forward).lower(*arguments)
    memory = lowered.compile().memory_analysis()
    assert memory.output_size_in_bytes >= 4 * length * 32 * 4
    return memory.temp_size_in_bytes + memory.output_size_in_bytes


def test_forward_at_32k_tokens_fits_in_a_gibibyte():
    assert needed_bytes(32_768, gradients=False, jit=jax.jit) < 2**30


@pytest.mark.parametrize("scheme", [ALiBi(), Shaw(), CoPE(), Forgetting()], ids=lambda scheme: scheme.name)
def test_memory_of_the_backward_pass_grows_with_the_length_alone(scheme):
    short, long = (needed_bytes(length, gradients=True, jit=compiled, scheme=scheme) for length in (4096, 8192))
    assert long < 2.2 * short
    assert long < 4 * 8192 * 8192 * 4 / 10  # a tenth of one float32 array of all logits


def test_contiguous_is_forgotten_where_tokens_are_cut():
    """A hook that saw tiles marked as whole documents could take a shortcut that is wrong for them."""
    seen = []

    @dataclass(frozen=True)
    class Watching(PositionScheme):
        def change_logits(self, parameters, logits_BxHxQxT, tile):
            seen.append(tile.query.contiguous or tile.key.contiguous)
            return logits_BxHxQxT

    tokens, x = contiguous_tokens(16), random(1, 1, 16, SIZE)
    rule = AttentionRule(Watching(), Full())
    jax.eval_shape(lambda x: blockwise_attention(rule, {}, x, x, x, tokens, tokens, Tiles(8, 8)), x)
    assert seen and not any(seen)

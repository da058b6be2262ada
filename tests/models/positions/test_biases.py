"""What holds for every bias that is a function of the distance, or nearly so."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention import AttentionRule, Full, Tiles, blockwise_attention, reference_attention
from models.positions import PositionScheme, Tile, Tokens
from models.positions.distance_function import DistanceFunction
from models.positions.fire import FIRE
from models.positions.kerple import KerpleLog, KerplePower
from models.positions.sandwich import Sandwich
from tests.models.samples import compiled, random, relative_error, tokens_at

SCHEMES: dict[str, PositionScheme] = {
    "kerple_log": KerpleLog(),
    "kerple_power": KerplePower(),
    "sandwich": Sandwich(dimensions=16),
    "fire": FIRE(threshold=10),
    "distance": DistanceFunction(),
}
HEADS, GROUPS, SIZE = 6, 3, 4
every_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)


def learned(scheme: PositionScheme, heads: int = HEADS) -> dict[str, jax.Array]:
    """Numbers of either sign, so that nothing rests on how they start."""
    specs = scheme.layer_parameters(heads, SIZE)
    return {name: random(*spec.shape, seed=3 + i) for i, (name, spec) in enumerate(specs.items())}


def fields_of(scheme: PositionScheme) -> dict:
    return {field.name: getattr(scheme, field.name) for field in dataclasses.fields(scheme)}


def vectors(rows: int, length: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    heads = (HEADS, GROUPS, GROUPS)
    q, k, v = (random(rows, count, length, SIZE, seed=i) for i, count in enumerate(heads))
    return q, k, v


def change(scheme: PositionScheme, parameters, q, k, tokens: Tokens) -> jax.Array:
    tile = Tile(q, k, tokens, tokens)
    return scheme.change_logits(parameters, scheme.score(parameters, tile), tile)


compiled_change = compiled(change, static_argnums=0)


def logits(scheme: PositionScheme, tokens: Tokens) -> jax.Array:
    q, k, _ = vectors(*tokens.position.shape)
    return compiled_change(scheme, learned(scheme), q, k, tokens)


@functools.partial(compiled, static_argnums=(0, 1))
def values_and_gradients(rule: AttentionRule, attention, parameters, q, k, v, tokens: Tokens, weight):
    values, pull = jax.vjp(lambda *given: attention(rule, *given, tokens, tokens), parameters, q, k, v)
    return values, pull(weight)


@every_scheme
def test_tile_by_tile_is_all_at_once(scheme):
    """Packed documents of odd lengths, one of a single token, padding, and heads that are no power of two."""
    position = [[*range(14), 0, *range(6)], [*range(19), 0, 0]]
    document = [[0] * 14 + [1] + [2] * 6, [0] * 19 + [-1, -1]]
    tokens, weight = tokens_at(position, document), random(2, HEADS, 21, SIZE, seed=5)
    rule, given = AttentionRule(scheme, Full()), (learned(scheme), *vectors(2, 21))
    wanted = values_and_gradients(rule, reference_attention, *given, tokens, weight)
    blockwise = functools.partial(blockwise_attention, tiles=Tiles(8, 4))
    got = values_and_gradients(rule, blockwise, *given, tokens, weight)
    assert relative_error(got, wanted) < 1e-5
    for name, gradient in got[1][0].items():
        assert np.isfinite(gradient).all(), name
        assert np.abs(gradient).max() > 1e-3, name


@every_scheme
def test_a_common_shift_is_not_noticed(scheme):
    """FIRE notices one that takes a query beyond its threshold, by design; this one does not."""
    if isinstance(scheme, FIRE):
        scheme = FIRE(threshold=10**6)
    here = np.array([[0, 1, 2, 5, 9, 30], [3, 4, 8, 15, 16, 20]])
    there = here + np.array([[117], [100_003]])
    got, wanted = logits(scheme, tokens_at(there)), logits(scheme, tokens_at(here))
    assert got.dtype == jnp.float32 and got.shape == (2, HEADS, 6, 6)
    np.testing.assert_array_equal(got, wanted)


@every_scheme
def test_distances_are_asked_of_the_scheme(scheme):
    """So that a scheme under another idea of distance, fractional ones too, follows it."""

    class Halved(type(scheme)):
        def distance(self, tile):
            return super().distance(tile) / 2

    if isinstance(scheme, FIRE):
        scheme = FIRE(threshold=100)
    wanted = logits(scheme, tokens_at([[0, 3, 5, 20]]))
    got = logits(Halved(**fields_of(scheme)), tokens_at([[0, 6, 10, 40]]))
    assert relative_error(got, wanted) < 1e-5


@every_scheme
def test_bias_is_float32_beside_bfloat16_vectors(scheme):
    tokens = tokens_at([[0, 1, 700, 4095]])
    zeros = jnp.zeros((1, HEADS, 4, SIZE))
    got, wanted = (
        compiled_change(scheme, learned(scheme), zeros.astype(dtype), zeros.astype(dtype), tokens)
        for dtype in (jnp.bfloat16, jnp.float32)
    )
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, wanted)


@every_scheme
@pytest.mark.parametrize("heads", [1, 5])
def test_one_token_and_any_number_of_heads(scheme, heads):
    tokens = tokens_at([[3]])
    q = random(1, heads, 1, SIZE)
    tile = Tile(q, q, tokens, tokens)

    def total(parameters):
        return scheme.change_logits(parameters, jnp.zeros((1, heads, 1, 1)), tile).sum()

    value, gradients = compiled(jax.value_and_grad(total))(learned(scheme, heads))
    assert np.isfinite(value)
    assert all(np.isfinite(gradient).all() for gradient in jax.tree.leaves(gradients))


@every_scheme
def test_gradients_are_finite_where_later_keys_share_a_tile(scheme):
    """Their logits are masked afterwards, but a gradient of 0 times what is not finite would be NaN."""
    tokens = tokens_at([[0, 1, 5000, 70_000]])

    q, k, _ = vectors(1, 4)

    def seen(parameters):
        changed = change(scheme, parameters, q, k, tokens)
        return jnp.where(jnp.tril(jnp.ones((4, 4), bool)), changed, 0.0).sum()

    value, gradients = compiled(jax.value_and_grad(seen))(learned(scheme))
    assert np.isfinite(value)
    assert all(np.isfinite(gradient).all() for gradient in jax.tree.leaves(gradients))


@every_scheme
def test_declares_what_it_learns_by_layer_and_head(scheme):
    fresh = {
        name: spec.initializer(jax.random.key(0), spec.shape, jnp.float32)
        for name, spec in scheme.layer_parameters(HEADS, SIZE).items()
    }
    for name, spec in scheme.layer_parameters(HEADS, SIZE).items():
        assert spec.axes == tuple("heads" if size == HEADS else None for size in spec.shape)
        assert fresh[name].shape == spec.shape and fresh[name].dtype == jnp.float32
    assert not scheme.plain_logits() and hash(scheme) == hash(type(scheme)(**fields_of(scheme)))

"""A learned sink and a cap on scores: tile by tile as all at once, and both as in float64, values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention import AttentionRule, Sliding, Tiles, blockwise_attention, reference_attention, visible
from models.positions import ALiBi
from models.positions.cope import CoPE
from tests.models.samples import compiled, random, relative_error, tokens_at

ROWS, HEADS, GROUPS, LENGTH, SIZE = 2, 4, 2, 19, 6
SPAN = Sliding(9)
# The second row has padding in front and between two documents, in whose tiles no query sees a key.
TOKENS = tokens_at(
    [[*range(LENGTH)], [*range(3), *range(6), *range(5), *range(5)]],
    [[0] * LENGTH, [-1] * 3 + [0] * 6 + [-1] * 5 + [1] * 5],
)
SLOPES = np.array([2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8])
CASES = {"sink": (0.0, True), "cap": (1.5, False), "both": (1.5, True), "neither": (0.0, False)}


def vectors(has_sink: bool):
    q, k, v = (random(ROWS, heads, LENGTH, SIZE, seed=i) for i, heads in enumerate((HEADS, GROUPS, GROUPS)))
    return (q, k, v, random(HEADS, seed=3)) if has_sink else (q, k, v)


WEIGHT = random(ROWS, HEADS, LENGTH, SIZE, seed=4)


@functools.partial(compiled, static_argnums=(0, 1))
def evaluate(blockwise: bool, rule: AttentionRule, inputs, learned):
    """Values, and gradients of their weighted sum with respect to q, k, v and, where there is one, the sink."""

    def function(q, k, v, sink=None):
        if blockwise:
            return blockwise_attention(rule, learned, q, k, v, TOKENS, TOKENS, Tiles(4, 5), sink_H=sink)
        return reference_attention(rule, learned, q, k, v, TOKENS, TOKENS, sink_H=sink)

    values, pull = jax.vjp(function, *inputs)
    return values, pull(WEIGHT)


def by_formula(cap: float, q, k, v, sink=None):
    """softmax with a cap on scores, ALiBi after it and a sink below, [ROWS, HEADS, LENGTH, SIZE]; of complex numbers
    too, so that a step along an imaginary axis gives derivatives to float64's own precision."""
    k, v = (np.repeat(x, HEADS // GROUPS, axis=1) for x in (k, v))
    scores = q @ np.swapaxes(k, 2, 3)
    scores = cap * np.tanh(scores / cap) if cap else scores
    position = np.asarray(TOKENS.position)
    bias = -SLOPES[:, None, None] * (position[:, None, :, None] - position[:, None, None, :])
    seen = np.asarray(visible(SPAN, TOKENS, TOKENS))[:, None]
    share = np.where(seen, np.exp(np.where(seen, scores + bias, 0)), 0)
    total = share.sum(-1, keepdims=True) + (0 if sink is None else np.exp(sink)[:, None, None])
    return share / np.where(total == 0, 1, total) @ v


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name):
    cap, has_sink = CASES[name]
    inputs, rule = vectors(has_sink), AttentionRule(ALiBi(), SPAN, soft_cap=cap)
    wanted, got = (evaluate(blockwise, rule, inputs, {}) for blockwise in (False, True))
    assert relative_error(got, wanted) < 1e-5
    exact = [np.asarray(x, np.float64) for x in inputs]
    for values, gradients in (wanted, got):
        assert relative_error(values, by_formula(cap, *exact)) < 1e-5
        for i, gradient in enumerate(gradients):
            along = np.asarray(random(*gradient.shape, seed=10 + i), np.float64)
            moved = [x + 1e-30j * along if i == j else x for j, x in enumerate(exact)]
            slope = (by_formula(cap, *moved).imag / 1e-30 * np.asarray(WEIGHT, np.float64)).sum()
            size = np.linalg.norm(along) * np.linalg.norm(gradient)
            assert abs((np.asarray(gradient, np.float64) * along).sum() - slope) < 1e-5 * size
    for values, (d_q, *_) in (wanted, got):
        assert (np.asarray(values)[1, :, :3] == 0).all() and (np.asarray(d_q)[1, :, :3] == 0).all()


def test_with_sums_over_newer_keys():
    """Key tiles from the newest on; sums of gates of capped scores."""
    scheme = CoPE(max_position=3)
    learned = {name: random(*spec.shape) for name, spec in scheme.layer_parameters(HEADS, SIZE).items()}
    rule = AttentionRule(scheme, SPAN, soft_cap=1.5)
    wanted, got = (evaluate(blockwise, rule, vectors(True), learned) for blockwise in (False, True))
    assert relative_error(got, wanted) < 1e-5


def test_a_sink_takes_what_nothing_is_worth():
    inputs, rule = vectors(False), AttentionRule(ALiBi(), SPAN)
    plain = evaluate(True, rule, inputs, {})[0]
    none = evaluate(True, rule, (*inputs, jnp.full(HEADS, -80.0)), {})[0]
    all_of_it = evaluate(True, rule, (*inputs, jnp.full(HEADS, 80.0)), {})[0]
    assert relative_error(none, plain) < 1e-6 and np.abs(all_of_it).max() < 1e-20

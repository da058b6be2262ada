import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention import AttentionRule, Full, blockwise_attention, reference_attention
from models.errors import InvalidInput
from models.positions import fire
from models.positions.fire import FIRE
from models.positions.scheme import Tile, Tokens, contiguous_tokens
from tests.models.samples import compiled, random, tokens_at


def fresh(scheme: FIRE, heads: int) -> dict[str, jax.Array]:
    specs = scheme.layer_parameters(heads, 8).items()
    return {name: spec.initializer(jax.random.key(i), spec.shape, jnp.float32) for i, (name, spec) in enumerate(specs)}


def bias_at(scheme: FIRE, parameters, tokens: Tokens, heads: int = 3) -> jax.Array:
    length = tokens.position.shape[1]
    q = jnp.zeros((1, heads, length, 2))
    return scheme.change_logits(parameters, jnp.zeros((1, heads, length, length)), Tile(q, q, tokens, tokens))


def bias(scheme: FIRE, parameters, positions: list[int]) -> jax.Array:
    return bias_at(scheme, parameters, tokens_at([positions]))


def test_starts_at_the_papers_values():
    start = fresh(FIRE(), 12)
    np.testing.assert_allclose([start["c"], start["multiplier"]], [0.1, 1.0])
    assert start["output_weight"].shape == (32, 12)
    for name, limit in {"hidden": 1.0, "output": 32**-0.5}.items():
        assert 0.8 * limit < np.abs(start[f"{name}_weight"]).max() <= limit
    assert 0.8 < np.abs(start["hidden_bias"]).max() <= 1


def test_only_the_sizes_of_c_and_of_the_multiplier_count():
    scheme, parameters = FIRE(threshold=8), fresh(FIRE(), 3)
    turned = parameters | {"c": -parameters["c"], "multiplier": -parameters["multiplier"]}
    got, wanted = (compiled(functools.partial(bias, scheme))(p, [0, 4, 30]) for p in (turned, parameters))
    np.testing.assert_array_equal(got, wanted)


def test_beyond_the_threshold_the_farthest_key_looks_as_far_as_at_any_length():
    parameters = fresh(FIRE(), 3)
    farthest = compiled(lambda tokens: bias_at(FIRE(), parameters, tokens)[0, :, 1, 0])
    within, *ends = (farthest(tokens_at([[0, length]])) for length in (100, 600, 5000, 400_000))
    np.testing.assert_allclose(ends[1:], np.broadcast_to(ends[0], (2, 3)), rtol=1e-5)
    assert np.abs(within - ends[0]).max() > 1e-3


def test_a_learned_c_of_zero_stays_finite():
    parameters = fresh(FIRE(), 3) | {"c": jnp.zeros(())}
    value, gradient = compiled(jax.value_and_grad(lambda p: bias(FIRE(), p, [0, 4, 3000]).sum()))(parameters)
    assert np.isfinite(value) and all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_pairs_taken_a_few_at_a_time_are_the_same_in_values_and_gradients(monkeypatch):
    """49 pairs all at once, then 10 at a time, so that 9 are left over."""
    scheme, parameters, positions = FIRE(threshold=8), fresh(FIRE(), 3), [0, 1, 2, 7, 8, 20, 33]

    def evaluate():
        return compiled(jax.value_and_grad(lambda p: (bias(scheme, p, positions) ** 2).sum()))(parameters)

    wanted = evaluate()
    monkeypatch.setattr(fire, "HIDDEN_NUMBERS", 10 * 32)
    for got, expected in zip(jax.tree.leaves(evaluate()), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)


def needed_bytes(attention, length: int) -> int:
    """Of the backward pass of an attention, beside its inputs."""
    scheme, tokens = FIRE(), contiguous_tokens(length)
    rule, parameters = AttentionRule(scheme, Full()), fresh(scheme, 4)

    def backward(parameters, q, k, v, weight):
        _, pull = jax.vjp(lambda *given: attention(rule, *given, tokens, tokens), parameters, q, k, v)
        return pull(weight)

    x = jax.ShapeDtypeStruct((1, 4, length, 16), jnp.float32)
    memory = compiled(backward).lower(parameters, x, x, x, x).compile().memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes


def test_memory_of_the_backward_pass_grows_with_the_length_alone():
    short, long = (needed_bytes(blockwise_attention, length) for length in (2048, 4096))
    assert long < 2.2 * short
    assert long < 4096 * 4096 * 4  # one float32 number for each pair


def test_hidden_numbers_of_all_pairs_never_exist_at_once():
    length = 512
    assert needed_bytes(reference_attention, length) < length * length * 32 * 4


def test_refuses_an_empty_network():
    with pytest.raises(InvalidInput, match=r"^hidden = 0 is not allowed; it must be at least 1$"):
        FIRE(hidden=0)
    with pytest.raises(InvalidInput, match=r"^threshold = 0 is not allowed"):
        FIRE(threshold=0)


def test_learns_a_bias_it_is_given():
    """Gradients of all its numbers together lead somewhere: c and the threshold are part of the function."""
    scheme, positions = FIRE(threshold=8), list(range(24))
    wanted = random(1, 3, 24, 24, seed=4) * 0 - jnp.abs(jnp.subtract.outer(jnp.arange(24), jnp.arange(24))) ** 0.5
    seen = jnp.tril(jnp.ones((24, 24)))

    def loss(parameters):
        return (((bias(scheme, parameters, positions) - wanted) * seen) ** 2).mean()

    @compiled
    def step(parameters):
        value, gradient = jax.value_and_grad(loss)(parameters)
        return value, jax.tree.map(lambda x, d: x - 0.02 * d, parameters, gradient)

    parameters, losses = fresh(scheme, 3), []
    for _ in range(60):
        value, parameters = step(parameters)
        losses.append(float(value))
    assert losses[-1] < 0.2 * losses[0]

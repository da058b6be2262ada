"""Cross-entropy against a direct one, with full logits and in chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.loss import _over_chunks, chunk_tokens, cross_entropy


def batch(batch, length, width, vocabulary, dtype=jnp.float32, seed=0):
    generator = np.random.default_rng(seed)
    hidden = jnp.asarray(3 * generator.normal(size=(batch, length, width)), dtype)
    embedding = jnp.asarray(generator.normal(size=(vocabulary, width)), jnp.float32)
    targets = jnp.asarray(generator.integers(0, vocabulary, (batch, length)), jnp.int32)
    weights = jnp.asarray(generator.integers(0, 3, (batch, length)), jnp.float32)
    return hidden, embedding, targets, weights


def direct(hidden, embedding, targets, weights, soft_cap, z_loss):
    """The definition, left to automatic differentiation."""
    logits = jnp.einsum("bld,vd->blv", hidden, embedding)
    if soft_cap:
        logits = soft_cap * jnp.tanh(logits / soft_cap)
    log_p = jax.nn.log_softmax(logits)
    nats = -jnp.take_along_axis(log_p, targets[..., None], -1)[..., 0]
    log_z = jax.nn.logsumexp(logits, -1)
    return jnp.sum(weights * (nats + z_loss * log_z**2)), nats


def relative(a, b):
    return float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)))


@pytest.mark.parametrize(
    ("chunk", "soft_cap", "z_loss"),
    [(None, 0.0, 0.0), (None, 5.0, 0.1), (6, 0.0, 0.0), (7, 5.0, 0.1), (2, 5.0, 0.0), (1, 0.0, 0.1), (100, 0.0, 0.0)],
)
def test_values_and_gradients_are_those_of_the_definition(chunk, soft_cap, z_loss):
    hidden, embedding, targets, weights = batch(3, 7, 8, 13)

    def ours(hidden, embedding, weights):
        losses = cross_entropy(hidden, embedding, targets, weights, soft_cap=soft_cap, z_loss=z_loss, chunk=chunk)
        return 0.7 * losses.total, losses

    def theirs(hidden, embedding, weights):
        total, nats = direct(hidden, embedding, targets, weights, soft_cap, z_loss)
        return 0.7 * total, nats

    def with_gradients(function):
        return jax.jit(jax.value_and_grad(function, (0, 1, 2), has_aux=True))(hidden, embedding, weights)

    (value, losses), gradients = with_gradients(ours)
    (expected, nats), expected_gradients = with_gradients(theirs)
    assert value == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(losses.nats_BxL, nats, rtol=1e-4, atol=1e-5)
    assert losses.nats == pytest.approx(float(jnp.sum(nats * weights)), rel=1e-5)
    assert losses.weight == float(weights.sum())
    for ours_, theirs_ in zip(gradients, expected_gradients, strict=True):
        assert ours_.dtype == theirs_.dtype and relative(ours_, theirs_) < 1e-5
    without_gradients = jax.jit(ours)(hidden, embedding, weights)[0]
    assert without_gradients == pytest.approx(float(value), rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(1, 9), length=st.integers(1, 40), chunk=st.integers(1, 60))
def test_a_chunk_is_never_larger_than_asked(rows, length, chunk):
    sizes = []

    def note(carry, flat):
        sizes.append(flat[1].shape[0])
        return carry, flat[1]

    tokens = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    _, back = jax.eval_shape(lambda x: _over_chunks(note, None, (x, x), chunk), tokens)
    assert back.shape == (rows, length)
    assert max(sizes) <= chunk


@pytest.mark.parametrize("chunk", [None, 6])
def test_bfloat16_hidden_keeps_float32_logits(chunk):
    hidden, embedding, targets, weights = batch(2, 16, 16, 50, jnp.bfloat16)
    rounded = embedding.astype(jnp.bfloat16).astype(jnp.float32)

    def ours(hidden, embedding):
        return cross_entropy(hidden, embedding, targets, weights, chunk=chunk).total

    def theirs(hidden, embedding):
        return direct(hidden, embedding, targets, weights, 0.0, 0.0)[0]

    value, gradients = jax.jit(jax.value_and_grad(ours, (0, 1)))(hidden, embedding)
    expected, expected_gradients = jax.jit(jax.value_and_grad(theirs, (0, 1)))(hidden.astype(jnp.float32), rounded)
    assert value.dtype == jnp.float32 and value == pytest.approx(float(expected), rel=1e-5)
    assert gradients[0].dtype == jnp.bfloat16 and gradients[1].dtype == jnp.float32
    for ours_, theirs_ in zip(gradients, expected_gradients, strict=True):
        assert relative(ours_, theirs_) < 1e-2


def test_tokens_without_weight_change_nothing():
    hidden, embedding, targets, weights = batch(2, 9, 8, 13)
    weights = weights.at[:, 5:].set(0.0)
    jitted = jax.jit(cross_entropy, static_argnames="chunk")
    whole = jitted(hidden, embedding, targets, weights, chunk=4)
    part = jitted(hidden[:, :5], embedding, targets[:, :5], weights[:, :5])
    assert whole.total == pytest.approx(float(part.total), rel=1e-6) and whole.weight == part.weight


def test_chunks_appear_only_where_full_logits_do_not_fit():
    assert chunk_tokens(4096, 2048) is None
    assert chunk_tokens(1 << 16, 1 << 17) == 512
    assert chunk_tokens(10, 1000, budget_bytes=4 * 10 * 1000) is None
    assert chunk_tokens(11, 1000, budget_bytes=4 * 10 * 1000) == 10
    assert chunk_tokens(8, 1000, budget_bytes=1) == 1


def test_full_logits_never_exist_in_chunks():
    rows, length, width, vocabulary = 4, 1024, 32, 8192
    shapes = jax.eval_shape(lambda: batch_of_zeros(rows, length, width, vocabulary))

    def temporary_bytes(chunk):
        def total(hidden, embedding, targets, weights):
            return cross_entropy(hidden, embedding, targets, weights, chunk=chunk).total

        return jax.jit(jax.grad(total, (0, 1))).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    full = rows * length * vocabulary * 4
    assert temporary_bytes(512) < full / 2
    assert temporary_bytes(None) >= full  # or the measure above says nothing


def batch_of_zeros(rows, length, width, vocabulary):
    tokens = jnp.zeros((rows, length), jnp.int32)
    return jnp.zeros((rows, length, width)), jnp.zeros((vocabulary, width)), tokens, jnp.ones((rows, length))

"""Entropy of attention against its definition, and that nobody pays for it who does not ask."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention import AttentionRule, Full, Sliding, attention_entropy
from models.config import ModelConfig
from models.mixers import attention
from models.positions import ALiBi, NoPosition
from models.positions.scheme import contiguous_tokens
from models.transformer import Transformer, init_parameters
from tests.models.samples import random, tokens_at


@pytest.mark.parametrize(("length", "tile"), [(1, 1), (7, 3), (12, 4), (5, 128)])
def test_uniform_attention_has_the_logarithm_of_how_many_keys_are_seen(length, tile):
    vectors = jnp.zeros((1, 2, length, 4))
    tokens = contiguous_tokens(length)
    entropy = attention_entropy(AttentionRule(NoPosition(), Full()), {}, vectors, vectors, tokens, tokens, tile)
    assert entropy.shape == (1, 2, length) and entropy.dtype == jnp.float32
    np.testing.assert_allclose(entropy[0, 1], np.log(np.arange(1, length + 1)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("tile", [4, 5, 64])
@pytest.mark.parametrize("span", [Full(), Sliding(5)])
def test_it_is_that_of_a_softmax_written_out(tile, span):
    length, heads = 13, 4
    q, k = random(2, heads, length, 8) * 2, random(2, 2, length, 8, seed=1)
    tokens = contiguous_tokens(length)
    found = attention_entropy(AttentionRule(ALiBi(), span), {}, q, k, tokens, tokens, tile)
    scores = np.einsum("bhqk,bhtk->bhqt", np.float64(q), np.repeat(np.float64(k), 2, axis=1))
    distance = np.arange(length)[:, None] - np.arange(length)
    slopes = 2.0 ** (-8 * np.arange(1, heads + 1) / heads)
    scores = scores - slopes[:, None, None] * distance
    seen = (distance >= 0) & (distance < getattr(span, "window", length))
    weights = np.where(seen, np.exp(scores), 0)
    weights /= weights.sum(axis=-1, keepdims=True)
    wanted = -np.where(seen, weights * np.log(np.where(seen, weights, 1)), 0).sum(axis=-1)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_padding_has_none_and_documents_count_for_themselves():
    vectors = jnp.zeros((1, 1, 5, 4))
    tokens = tokens_at(np.array([[0, 0, 1, 0, 1]]), np.array([[-1, 0, 0, 1, 1]]))
    entropy = attention_entropy(AttentionRule(NoPosition(), Full()), {}, vectors, vectors, tokens, tokens, 2)
    np.testing.assert_allclose(entropy[0, 0], [0, 0, np.log(2), 0, np.log(2)], atol=1e-6)


def test_a_model_computes_none_unless_asked(monkeypatch):
    model = ModelConfig(vocabulary_size=7, layers=2, width=8, heads=2, layer_loop="unroll")
    tokens, where = jnp.zeros((1, 4), jnp.int32), contiguous_tokens(4)

    def refuse(*_):
        raise AssertionError("entropy was asked for")

    monkeypatch.setattr(attention, "attention_entropy", refuse)
    for loop in ("unroll", "scan"):
        other = dataclasses.replace(model, layer_loop=loop)
        parameters = jax.eval_shape(lambda other=other: init_parameters(other, 0))
        jax.eval_shape(lambda p, other=other: Transformer(other).apply({"params": p}, tokens, where), parameters)
    assert set(parameters) == {"embedding", "units", "final_norm"}
    parameters = jax.eval_shape(lambda: init_parameters(model, 0))
    with pytest.raises(AssertionError, match="asked for"):
        jax.eval_shape(
            lambda p: Transformer(model).apply({"params": p}, tokens, where, mutable=["intermediates"]), parameters
        )

"""Decay by distance, at any position, from keys that are cached turned alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention import AttentionRule, Full, Tiles, blockwise_attention
from models.errors import InvalidInput
from models.positions import xpos
from models.positions.rotary import LAYOUTS, Rotary
from models.positions.scheme import PositionScheme, Tile, Tokens
from models.positions.xpos import XPos
from tests.models.samples import compiled, random, relative_error, tokens_at

SIZE = 8


def naive_scores(scheme: XPos, q, k, query: Tokens, key: Tokens, causal=True) -> np.ndarray:
    """The formula of the paper in float64, at float32 angles; 0 where a query may not see."""
    index = np.arange(SIZE // 2)
    frequency = (1.0 / scheme.base ** (2 * index / SIZE)).astype(np.float32)
    zeta = (2 * index + 0.4 * SIZE) / (1.4 * SIZE)

    def as_complex(x):
        x = np.asarray(x, np.float64)
        half = SIZE // 2
        return x[..., :half] + 1j * x[..., half:] if scheme.layout == "half_split" else x[..., ::2] + 1j * x[..., 1::2]

    def turned(x, tokens):
        position = np.asarray(tokens.position, np.float32)
        return as_complex(x) * np.exp(1j * (position[..., None] * frequency).astype(np.float64))[:, None]

    q, k = turned(q, query), np.repeat(turned(k, key), q.shape[1] // k.shape[1], axis=1)
    position_q, position_k = (np.asarray(t.position, np.float64)[:, None] for t in (query, key))
    distance = position_q[..., :, None] - position_k[..., None, :]
    document_q, document_k = (np.asarray(t.document)[:, None] for t in (query, key))
    seen = (distance >= 0) & (document_q[..., :, None] == document_k[..., None, :])
    decay = zeta ** (np.where(seen, distance, 0)[..., None] / 512)
    scores = np.real(q[:, :, :, None] * np.conj(k[:, :, None]) * decay).sum(-1)
    return np.where(seen, scores, 0)


@functools.partial(compiled, static_argnums=0)
def turned_and_scored(scheme: XPos, q, k, query: Tokens, key: Tokens) -> jax.Array:
    q, k = (jnp.swapaxes(scheme.rotate(jnp.swapaxes(x, 1, 2), t.position), 1, 2) for x, t in ((q, query), (k, key)))
    return scheme.score({}, Tile(q, k, query, key))


def scores_of(scheme: XPos, q, k, query: Tokens, key: Tokens) -> np.ndarray:
    """Of unturned q and k, 0 where a query may not see."""
    scores = turned_and_scored(scheme, q, k, query, key)
    assert scores.dtype == jnp.float32 and np.isfinite(scores).all()
    distance = query.position[:, None, :, None] - key.position[:, None, None, :]
    same = query.document[:, None, :, None] == key.document[:, None, None, :]
    return np.where((distance >= 0) & same, scores, 0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("start", [0, 32_760, 1_000_000])
def test_scores_are_the_formula_at_any_position(layout, start):
    scheme, q, k = XPos(layout=layout), random(2, 4, 5, SIZE), random(2, 2, 9, SIZE, seed=1)
    query = tokens_at([[start + at for at in (3, 4, 5, 100, 700)], [start, start, start + 1, start + 2, start + 3]])
    key = tokens_at([[start + at for at in (0, 1, 2, 3, 4, 5, 50, 100, 700)], [*range(8), start]])
    got = scores_of(scheme, q, k, query, key)
    assert relative_error(got, naive_scores(scheme, q, k, query, key)) < 1e-5


def test_packed_documents_and_padding_far_apart():
    """In one tile: the end of one document, the start of another, and padding; keys of a third."""
    position = [[60_000, 60_001, 0, 1, 2, 0]]
    query = tokens_at(position, [[3, 3, 4, 4, 4, -1]])
    key = tokens_at([[59_000, 60_000, 60_001, 0, 1, 2, 40, 0]], [[3, 3, 3, 4, 4, 4, 5, -1]])
    q, k = random(1, 2, 6, SIZE), random(1, 1, 8, SIZE, seed=1)
    assert relative_error(scores_of(XPos(), q, k, query, key), naive_scores(XPos(), q, k, query, key)) < 1e-5


@pytest.mark.parametrize("last", [30_000, 90_000, 500_000])
def test_queries_of_one_document_far_apart(last):
    """Beyond 32,000 tokens no one scale serves all queries."""
    query, key = tokens_at([[0, 10, last // 2, last]]), tokens_at([[0, 5, last // 2 - 300, last // 2, last - 7, last]])
    q, k = random(1, 2, 4, SIZE), random(1, 1, 6, SIZE, seed=1)
    assert relative_error(scores_of(XPos(), q, k, query, key), naive_scores(XPos(), q, k, query, key)) < 1e-5


def test_gradients_are_finite_and_equal_on_both_ways(monkeypatch):
    query = key = tokens_at([[0, 3, 700, 1500], [5, 6, 7, 8]])
    q, k, weight = random(2, 2, 4, SIZE), random(2, 1, 4, SIZE, seed=1), random(2, 2, 4, 4, seed=2)
    weight *= jnp.tril(jnp.ones((4, 4)))

    def gradients():
        return compiled(lambda q, k: jax.vjp(lambda q, k: XPos().score({}, Tile(q, k, query, key)), q, k)[1](weight))(
            q, k
        )

    together = gradients()
    monkeypatch.setattr(xpos, "LARGEST_EXPONENT", 1.5)  # 1500 tokens reach e^1.8
    one_by_one = gradients()
    assert all(np.isfinite(gradient).all() for gradient in together)
    assert relative_error(one_by_one, together) < 1e-5


def test_a_query_alone_scores_as_among_others():
    """As when decoding: the keys of the cache were never scaled."""
    everyone = tokens_at([range(3000, 3040)])
    q, k = random(1, 2, 40, SIZE), random(1, 1, 40, SIZE, seed=1)
    scores = scores_of(XPos(), q, k, everyone, everyone)
    for m in (0, 17, 39):
        alone = scores_of(XPos(), q[:, :, m : m + 1], k, tokens_at([[3000 + m]]), everyone)
        assert relative_error(alone[:, :, 0], scores[:, :, m]) < 1e-5


def test_blockwise_attention_at_32k_positions():
    """Of queries at the end of a long document, in tiles, against the formula."""
    length, start = 96, 32_768 - 96
    tokens = tokens_at([range(start, start + length)])
    q, k, v = (random(1, heads, length, SIZE, seed=heads) for heads in (4, 2, 2))
    scheme = XPos()

    @compiled
    def attend(q, k, v):
        q, k = (jnp.swapaxes(scheme.rotate(jnp.swapaxes(x, 1, 2), tokens.position), 1, 2) for x in (q, k))
        return blockwise_attention(AttentionRule(scheme, Full()), {}, q, k, v, tokens, tokens, Tiles(32, 32))

    got = attend(q, k, v)
    logits = np.where(np.tri(length, dtype=bool), naive_scores(scheme, q, k, tokens, tokens), -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    wanted = weights / weights.sum(-1, keepdims=True) @ np.repeat(np.asarray(v, np.float64), 2, axis=1)
    assert relative_error(got, wanted) < 1e-5


def test_it_is_rope_where_nothing_decays():
    tokens, q, k = tokens_at([range(6)]), random(1, 2, 6, SIZE), random(1, 2, 6, SIZE, seed=1)
    slow = scores_of(XPos(scale_base=1e9), q, k, tokens, tokens)
    turned = compiled(lambda x: jnp.swapaxes(Rotary().rotate(jnp.swapaxes(x, 1, 2), tokens.position), 1, 2))
    wanted = np.tril(np.einsum("bhqk,bhtk->bhqt", turned(q), turned(k)))
    np.testing.assert_allclose(slow, wanted, atol=1e-5)


def test_rates():
    rates = XPos().decay_rates(64)
    assert rates.dtype == np.float64 and (rates < 0).all() and (np.diff(rates) > 0).all()
    np.testing.assert_allclose(np.exp(512 * rates[[0, 31]]), [0.4 / 1.4, (62 + 25.6) / 89.6])


def test_the_scheme_is_registered_and_refuses_what_it_cannot_do():
    assert PositionScheme.registry["xpos"] is XPos and not XPos().plain_logits()
    for changes, message in (
        ({"layout": "pairs"}, r"^layout = 'pairs'"),
        ({"gamma": 0.0}, r"^gamma = 0.0"),
        ({"scale_base": -512.0}, r"^scale_base = -512.0"),
        ({"base": 0.5}, r"^base = 0.5"),
    ):
        with pytest.raises(InvalidInput, match=message):
            dataclasses.replace(XPos(), **changes)
    with pytest.raises(InvalidInput, match=r"^head_size = 7"):
        XPos().check(7)

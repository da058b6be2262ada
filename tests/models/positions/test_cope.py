"""Contextual positions: counting tokens where every gate is open, and the cap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention import AttentionRule, Full
from models.errors import InvalidInput
from models.positions.cope import CoPE
from models.positions.scheme import Tile
from tests.models.samples import compiled, random, tokens_at


def test_one_table_for_all_heads_starts_at_zero():
    spec = CoPE().layer_parameters(4, 32)["embedding"]
    assert spec.shape == (65, 32) and spec.axes == (None, "head_size")
    assert not np.any(spec.initializer(jax.random.key(0), spec.shape, jnp.float32))
    assert CoPE().accumulates() and not CoPE().plain_logits()


def test_open_gates_count_tokens():
    """Scores so large that every gate is 1: the position of a key is its distance plus one, up to the largest."""
    length, scheme = 9, CoPE(max_position=5)
    x = jnp.full((1, 1, length, 4), 20.0)
    table, tokens = random(6, 4), tokens_at([range(length)])
    seen = jnp.tril(jnp.ones((1, length, length), bool))
    rule = AttentionRule(scheme, Full())
    logits, carry = compiled(rule.logits)({"embedding": table}, x, x, tokens, tokens, seen, jnp.zeros((1, 1, length)))
    distance = np.arange(length)[:, None] - np.arange(length)
    wanted = 1600 + 40 * np.asarray(table, np.float64).sum(1)[np.clip(distance + 1, 0, 5)]
    np.testing.assert_allclose(np.where(seen[0], logits[0, 0], 0), np.where(seen[0], wanted, 0), rtol=1e-6)
    np.testing.assert_allclose(carry[0, 0], np.arange(length) + 1)


def test_between_integers_positions_are_interpolated():
    q, table = random(1, 2, 1, 4), random(4, 4, seed=1)
    position = jnp.array([0.25, 1.0, 1.5, 2.75, 3.0, 80.0])
    tile = Tile(
        q, random(1, 1, 6, 4), tokens_at([[7]]), tokens_at([range(6)]), jnp.broadcast_to(position, (1, 2, 1, 6))
    )
    got = CoPE(max_position=3).change_logits({"embedding": table}, jnp.zeros((1, 2, 1, 6)), tile)
    at_integers = 2 * np.asarray(q)[0, :, 0] @ np.asarray(table).T  # √4 times: the query before it was scaled
    wanted = [np.interp(np.minimum(position, 3), range(4), row) for row in at_integers]
    np.testing.assert_allclose(got[0, :, 0], wanted, rtol=1e-5, atol=1e-6)


def test_a_largest_position_of_nothing_is_refused():
    with pytest.raises(InvalidInput, match=r"^max_position = 0 is not allowed; it must be at least 1"):
        CoPE(max_position=0)

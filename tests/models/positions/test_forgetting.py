"""Cumulative log gates: exact at length, anew with each document, deaf to padding, continued from a cache."""

import jax
import jax.numpy as jnp
import numpy as np

from models.positions.forgetting import Forgetting, cumulative_log_gates
from tests.models.samples import compiled, random, relative_error, tokens_at

HEADS, WIDTH = 3, 5
SCHEME = Forgetting()
NUMBERS = {"gate": random(WIDTH, HEADS, seed=1), "gate_bias": random(HEADS, seed=2)}
features = compiled(SCHEME.features)


def nothing_before(rows: int) -> dict:
    return {name: jnp.zeros((rows, *shape)) for name, shape in SCHEME.feature_shapes(HEADS).items()}


def total(parts: dict) -> np.ndarray:
    return np.asarray(parts["coarse"], np.float64) + np.asarray(parts["fine"], np.float64)


def log_gates(x) -> np.ndarray:
    z = np.asarray(x, np.float64) @ np.asarray(NUMBERS["gate"], np.float64) + np.asarray(
        NUMBERS["gate_bias"], np.float64
    )
    return -np.log1p(np.exp(-z))


def test_gates_start_near_one_half():
    specs = SCHEME.feature_parameters(64, 4)
    assert {name: (spec.shape, spec.axes) for name, spec in specs.items()} == {
        "gate": ((64, 4), ("embed", "heads")),
        "gate_bias": ((4,), ("heads",)),
    }
    fresh = {name: spec.initializer(jax.random.key(0), spec.shape, jnp.float32) for name, spec in specs.items()}
    assert 0.01 < fresh["gate"].std() < 0.03 and not fresh["gate_bias"].any()
    assert not SCHEME.plain_logits() and SCHEME.plain_values() and not SCHEME.accumulates()


def test_differences_stay_exact_where_plain_sums_do_not():
    """16,384 gates of about a half: a plain float32 sum has lost more than a thousandth."""
    log_gate = jax.nn.log_sigmoid(0.3 * random(1, 16_384, 2))
    starts = jnp.arange(16_384)[None] == 0
    before = {name: jnp.zeros((1, 2)) for name in ("coarse", "fine")}
    parts = {name: np.asarray(x)[0] for name, x in compiled(cumulative_log_gates)(log_gate, starts, before).items()}
    exact = np.cumsum(np.asarray(log_gate[0], np.float64), axis=0)
    plain = np.asarray(jnp.cumsum(log_gate[0], axis=0))

    def back(x, n):
        return x[n:] - x[:-n]

    for n in (1, 16, 300):
        wanted = back(exact, n)
        assert np.abs(back(parts["coarse"], n) + back(parts["fine"], n) - wanted).max() < 3e-5
        assert np.abs(back(plain, n) - wanted).max() > 3e-4


def test_each_document_begins_anew_and_padding_changes_nothing():
    x = random(2, 9, WIDTH)
    position = [[0, 1, 2, 0, 1, 2, 3, 0, 1], [0, 0, 0, 0, 1, 2, 3, 4, 5]]
    document = [[0, 0, 0, 1, 1, 1, 1, -1, -1], [-1, -1, -1, 0, 0, -1, 0, 0, 0]]
    got = total(features(NUMBERS, x, tokens_at(position, document), nothing_before(2)))
    each = log_gates(x) * (np.array(document) >= 0)[..., None]
    np.testing.assert_allclose(got[0], np.concatenate([each[0, :3].cumsum(0), each[0, 3:].cumsum(0)]), rtol=1e-5)
    np.testing.assert_allclose(got[1], each[1].cumsum(0), rtol=1e-5)


def test_nothing_reaches_back_into_another_document():
    where = tokens_at([[0, 1, 2, 0, 1, 2, 3, 4, 5]], [[0] * 3 + [1] * 6])
    weight = random(9, HEADS)[3:]

    def later(x):
        parts = SCHEME.features(NUMBERS, x, where, nothing_before(1))
        return jnp.sum(weight * (parts["coarse"] + parts["fine"])[0, 3:])

    gradient = np.asarray(compiled(jax.grad(later))(random(1, 9, WIDTH)))[0]
    assert (gradient[:3] == 0).all() and (np.abs(gradient[3:]).max(axis=1) > 0).all()


def test_chunks_continue_the_whole():
    """Among them one that a row fills with padding alone, and one in which a document starts."""
    x = random(2, 9, WIDTH)
    position = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 1, 2, 0, 0, 0, 3, 0, 1]])
    document = np.array([[0] * 9, [0, 0, 0, -1, -1, -1, 0, 1, 1]])
    whole = features(NUMBERS, x, tokens_at(position, document), nothing_before(2))
    before, parts = nothing_before(2), []
    for start in (0, 3, 6):
        chunk = slice(start, start + 3)
        parts.append(features(NUMBERS, x[:, chunk], tokens_at(position[:, chunk], document[:, chunk]), before))
        before = {name: value[:, -1] for name, value in parts[-1].items()}
    np.testing.assert_array_equal(np.concatenate([part["coarse"] for part in parts], axis=1), whole["coarse"])
    assert relative_error(np.concatenate([total(part) for part in parts], axis=1), total(whole)) < 1e-6

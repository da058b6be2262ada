"""Cross-attention against its definition, and that it sees all states of its document and nothing else."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.config import ModelConfig
from models.mixers import CrossAttention
from models.positions import NoPosition
from tests.models.samples import compiled, random, relative_error, tokens_at

WIDTH, THEIR_WIDTH, HEADS, GROUPS, SIZE = 10, 7, 4, 2, 6
CONFIG = ModelConfig(width=WIDTH, heads=HEADS, kv_heads=GROUPS, head_size=SIZE, position=NoPosition())
# The second row: two documents on either side, padding among them, and a third without states.
TOKENS = tokens_at([[0, 1, 2, 3, 4], [0, 1, 0, 0, 0]], [[0, 0, 0, 0, 0], [0, 0, 1, -1, 2]])
THEIR = tokens_at([[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 0, 1, 0, 0]], [[0] * 7, [0, 0, 0, 1, 1, -1, -1]])
SEEN = np.zeros((2, 5, 7), bool)
SEEN[0] = True
SEEN[1, :2, :3] = SEEN[1, 2, 3:5] = True


def parameters() -> dict:
    shapes = {
        "query": (WIDTH, HEADS, SIZE),
        "key": (THEIR_WIDTH, GROUPS, SIZE),
        "value": (THEIR_WIDTH, GROUPS, SIZE),
        "output": (HEADS, SIZE, WIDTH),
    }
    return {name: {"kernel": random(*shape, seed=i) / 2} for i, (name, shape) in enumerate(shapes.items())}


X, STATES = random(2, 5, WIDTH, seed=5), random(2, 7, THEIR_WIDTH, seed=6)


@functools.partial(compiled, static_argnums=0)
def evaluate(implementation: str, parameters, x, states):
    """The output, and the gradients of its weighted sum."""

    def function(parameters, x, states):
        module = CrossAttention(CONFIG.replace(attention=implementation), 0)
        return module.apply({"params": parameters}, x, TOKENS, states, THEIR)

    output, pull = jax.vjp(function, parameters, x, states)
    return output, pull(random(*output.shape, seed=7))


def by_definition() -> np.ndarray:
    kernel = {name: np.asarray(part["kernel"], np.float64) for name, part in parameters().items()}
    q = np.einsum("bld,dhk->bhlk", X, kernel["query"])
    k, v = (
        np.repeat(np.einsum("bsd,dgk->bgsk", STATES, kernel[name]), HEADS // GROUPS, axis=1)
        for name in ("key", "value")
    )
    share = np.where(SEEN[:, None], np.exp(q @ np.swapaxes(k, 2, 3) / np.sqrt(SIZE)), 0)
    total = share.sum(-1, keepdims=True)
    return np.einsum("bhlk,hkd->bld", share / np.where(total == 0, 1, total) @ v, kernel["output"])


@pytest.mark.parametrize("implementation", ["reference", "blockwise", "auto"])
def test_it_computes_its_definition(implementation):
    assert relative_error(evaluate(implementation, parameters(), X, STATES)[0], by_definition()) < 1e-5


def test_tiles_have_the_same_gradients():
    wanted, got = (evaluate(name, parameters(), X, STATES)[1] for name in ("reference", "blockwise"))
    assert relative_error(got, wanted) < 1e-5
    *_, d_states = got
    assert (np.asarray(d_states[1, 5:]) == 0).all() and (np.abs(d_states[0]).max(axis=-1) > 0).all()


def test_states_of_other_documents_change_nothing():
    changed = STATES.at[1, 3:].add(1.0)
    output, _ = evaluate("reference", parameters(), X, changed)
    wanted, _ = evaluate("reference", parameters(), X, STATES)
    np.testing.assert_array_equal(output[1, :2], wanted[1, :2])
    assert jnp.abs(output[1, 2] - wanted[1, 2]).max() > 1e-3 and (np.asarray(output[1, 3:]) == 0).all()

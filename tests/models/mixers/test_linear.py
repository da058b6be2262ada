"""Linear attention's chunks are the quadratic form, and so is one token at a time, in packed rows with padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.mixers import LinearMixer
from models.mixers.linear import elu_plus_1, empty_sums, linear_attention
from models.positions import Rotary, Tokens
from tests.models.samples import TINY, compiled, empty_cache, random, relative_error, tokens_at, whole

ROWS, HEADS, GROUPS, LENGTH, SIZE, VALUE = 2, 4, 2, 17, 6, 5
# Documents of several chunks and several in one; padding in front, between and behind; one never goes on.
POSITION = np.array([[*range(11), *range(6)], [0, 0, *range(2), 0, *range(1), *range(9), 0, 0]])
DOCUMENT = np.array([[0] * 11 + [1] * 6, [-1, -1, 0, 0, -1, 1, *[2] * 9, -1, -1]])
TOKENS = tokens_at(POSITION, DOCUMENT)


def vectors():
    q, k = (elu_plus_1(random(ROWS, heads, LENGTH, SIZE, seed=i)) for i, heads in enumerate((HEADS, GROUPS)))
    return q, k, random(ROWS, GROUPS, LENGTH, VALUE, seed=2)


def attention(chunk: int, q, k, v, tokens: Tokens = TOKENS, state=None):
    def rotate(x):
        return jnp.swapaxes(Rotary().rotate(jnp.swapaxes(x, 1, 2), tokens.position), 1, 2)

    state = empty_sums((ROWS,), GROUPS, SIZE, VALUE) if state is None else state
    return linear_attention((q, k), (rotate(q), rotate(k)), v, tokens, state, chunk)


@functools.partial(compiled, static_argnums=0)
def evaluate(chunk: int, q, k, v):
    """Values [B, H, L, V] and gradients of their weighted sum."""
    values, pull = jax.vjp(lambda q, k, v: attention(chunk, q, k, v)[0], q, k, v)
    return values, pull(random(*values.shape, seed=3))


def by_definition() -> np.ndarray:
    """All pairs in float64; a pair of rotated features is a sum over complex numbers."""
    q, k, v = (np.asarray(x, np.float64) for x in vectors())
    k, v = (np.repeat(x, HEADS // GROUPS, axis=1) for x in (k, v))
    half = SIZE // 2
    phase = np.exp(1j * POSITION[:, None, :, None] * 10000.0 ** (-np.arange(half) / half))
    turned_q, turned_k = ((x[..., :half] + 1j * x[..., half:]) * phase for x in (q, k))
    seen = (DOCUMENT[:, :, None] == DOCUMENT[:, None]) & (DOCUMENT[:, None] >= 0) & np.tri(LENGTH, dtype=bool)
    above = (turned_q @ np.swapaxes(turned_k.conj(), 2, 3)).real * seen[:, None]
    total = (q @ np.swapaxes(k, 2, 3) * seen[:, None]).sum(-1, keepdims=True)
    return above / np.where(total == 0, 1, total) @ v


@pytest.mark.parametrize("chunk", [1, 4, 17, 64])
def test_chunks_are_the_quadratic_form(chunk):
    got = evaluate(chunk, *vectors())
    assert relative_error(got[0], by_definition()) < 1e-5
    assert relative_error(got[1], evaluate(64, *vectors())[1]) < 1e-5
    assert (np.moveaxis(np.asarray(got[0]), 2, 1)[DOCUMENT < 0] == 0).all()


def test_sums_go_on_from_any_token():
    """In parts, each of which starts from the sums of those before; of one token, and of two chunks."""
    vectors_of_all, parts = vectors(), []
    state = empty_sums((ROWS,), GROUPS, SIZE, VALUE)
    go_on = compiled(lambda q, k, v, tokens, state: attention(3, q, k, v, tokens, state))
    for start, stop in ((0, 4), (4, 8), (8, 9), (9, 13), (13, 17)):
        some, tokens = (
            jax.tree.map(lambda x: x[..., start:stop, :], vectors_of_all),  # noqa: B023
            jax.tree.map(lambda x: x[:, start:stop], TOKENS),  # noqa: B023
        )
        output, state = go_on(*some, tokens, state)
        parts.append(output)
    assert relative_error(np.concatenate(parts, axis=2), by_definition()) < 1e-5
    assert state.document_B.tolist() == [1, 2]


def test_what_is_kept_does_not_grow_with_the_capacity():
    config = TINY.replace(mixer=LinearMixer(), dtype="bfloat16")
    small, large = (jax.tree.leaves(empty_cache(config, 3, capacity).layers) for capacity in (10, 1000))
    assert [x.shape for x in small] == [x.shape for x in large] == [(2, 3, 2, 6, 6), (2, 3, 2, 6), (2, 3)]
    assert small[0].dtype == small[1].dtype == jnp.float32


def test_memory_grows_with_the_length_alone():
    def needed(length: int) -> int:
        shapes = [jax.ShapeDtypeStruct((1, heads, length, SIZE), jnp.float32) for heads in (HEADS, GROUPS, GROUPS)]
        state = empty_sums((1,), GROUPS, SIZE, SIZE)

        def total(q, k, v):
            return linear_attention((q, k), (q, k), v, whole(1, length), state, 64)[0].sum()

        memory = compiled(jax.grad(total, (0, 1, 2))).lower(*shapes).compile().memory_analysis()
        return memory.temp_size_in_bytes + memory.output_size_in_bytes

    short, long = needed(1024), needed(4096)
    assert long < 4.4 * short and long < 4096**2 * HEADS * 4 / 10

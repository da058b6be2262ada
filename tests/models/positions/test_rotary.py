import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.errors import InvalidInput
from models.positions import DynamicNTK, NTKAware, Rotary, Tile, Tokens, YaRN, rotary
from models.positions.rotary import turn
from models.positions.scaling.rule import plain_frequencies

SIZE, ORIGINAL = 8, 16


def random(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def tokens(positions) -> Tokens:
    positions = jnp.asarray(positions, jnp.int32)
    return Tokens(positions, jnp.zeros_like(positions))


def as_complex(x: np.ndarray, layout: str) -> np.ndarray:
    x = np.asarray(x, np.float64)
    half = x.shape[-1] // 2
    return x[..., :half] + 1j * x[..., half:] if layout == "half_split" else x[..., 0::2] + 1j * x[..., 1::2]


@pytest.mark.parametrize("layout", rotary.LAYOUTS)
def test_pairs_are_turned_by_position_times_frequency(layout):
    x, position = random(2, 5, 3, SIZE), np.array([[0, 1, 2, 50, 1000], [7, 7, 8, 9, 10]])
    turned = Rotary(layout=layout).rotate(x, jnp.asarray(position))
    angle = position[:, :, None] * plain_frequencies(10000.0, SIZE)
    wanted = as_complex(x, layout) * np.exp(1j * angle)[:, :, None]
    np.testing.assert_allclose(as_complex(turned, layout), wanted, atol=2e-4)


def test_the_layouts_are_permutations_of_each_other():
    x, position = random(1, 6, 2, SIZE), jnp.arange(6)[None]
    to_interleaved = np.arange(SIZE).reshape(2, SIZE // 2).T.ravel()
    half_split = Rotary(layout="half_split").rotate(x, position)
    interleaved = Rotary(layout="interleaved").rotate(x[..., to_interleaved], position)
    np.testing.assert_allclose(interleaved, half_split[..., to_interleaved], rtol=1e-6, atol=1e-6)


def test_angles_are_exact_in_float32_while_vectors_are_bfloat16():
    x, position = random(1, 2, 1, SIZE).astype(jnp.bfloat16), jnp.array([[4093, 4095]])
    turned = Rotary().rotate(x, position)
    assert turned.dtype == jnp.bfloat16
    exact = Rotary().rotate(x.astype(jnp.float32), position)
    np.testing.assert_allclose(turned.astype(jnp.float32), exact, atol=0.02)


def test_attention_factor_multiplies_scores_by_its_square():
    rule = YaRN(factor=4.0, original_length=ORIGINAL)
    unit = YaRN(factor=4.0, original_length=ORIGINAL, attention_factor=1.0)
    q, k, at = random(1, 3, 2, SIZE), random(1, 3, 2, SIZE, seed=1), jnp.arange(3)[None]

    def scores(scheme):
        return jnp.einsum("bqhk,bthk->bhqt", scheme.rotate(q, at), scheme.rotate(k, at))

    wanted = scores(Rotary(scaling=unit)) * (0.1 * np.log(4.0) + 1) ** 2
    np.testing.assert_allclose(scores(Rotary(scaling=rule)), wanted, rtol=1e-4, atol=1e-5)


def test_invalid_fields_and_an_odd_head_size_are_refused():
    with pytest.raises(InvalidInput, match=r"^layout = 'halves' is not allowed; it must be one of half_split"):
        Rotary(layout="halves")
    with pytest.raises(InvalidInput, match=r"^base = 1.0 is not allowed"):
        Rotary(base=1.0)
    with pytest.raises(InvalidInput, match=r"^head_size = 7 is not allowed"):
        Rotary().check(7)


# Dynamic NTK: every query at its own length.


def dynamic(**options) -> Rotary:
    layout = options.pop("layout", "half_split")
    return Rotary(layout=layout, scaling=DynamicNTK(**{"original_length": ORIGINAL, "round_to": 1} | options))


def naive_scores(scheme: Rotary, q, k, query_position, key_position) -> np.ndarray:
    """The definition in float64, one pair of tokens at a time: the rotary frequencies of each query's own length."""
    q, k = as_complex(q, scheme.layout), as_complex(k, scheme.layout)
    batch, heads, queries, _ = q.shape
    per_group = heads // k.shape[1]
    scores = np.zeros((batch, heads, queries, k.shape[2]))
    for b, h, m, n in np.ndindex(*scores.shape):
        here, there = query_position[b % len(query_position)][m], key_position[b % len(key_position)][n]
        length = -(-(here + 1) // scheme.scaling.round_to) * scheme.scaling.round_to
        stretch = max(1.0, scheme.scaling.factor * length / ORIGINAL - (scheme.scaling.factor - 1))
        frequency = plain_frequencies(scheme.base * stretch ** (SIZE / (SIZE - 2)), SIZE)
        turned_q, turned_k = (
            q[b, h, m] * np.exp(1j * here * frequency),
            k[b, h // per_group, n] * np.exp(1j * there * frequency),
        )
        scores[b, h, m, n] = np.real(turned_q * np.conj(turned_k)).sum()
    return scores


@pytest.mark.parametrize("layout", rotary.LAYOUTS)
@pytest.mark.parametrize("factor, group_size", [(1.0, 1), (4.0, 2**9), (1.0, 2**21)])
def test_scores_at_own_length_are_the_definition(layout, factor, group_size, monkeypatch):
    monkeypatch.setattr(rotary, "GROUP_SIZE", group_size)
    scheme = dynamic(layout=layout, factor=factor)
    query_position = np.array([[3, 15, 16, 30, 40], [39, 40, 41, 0, 1]])
    key_position = np.array([list(range(0, 42, 6)), list(range(7))])
    q, k = random(2, 4, 5, SIZE), random(2, 2, 7, SIZE, seed=1)
    scores = scheme.score({}, Tile(q, k, tokens(query_position), tokens(key_position)))
    assert scores.dtype == jnp.float32
    np.testing.assert_allclose(scores, naive_scores(scheme, q, k, query_position, key_position), atol=2e-4)


@pytest.mark.parametrize("at", [[[0, 5, 15]], [[47]], [[14, 15, 16]]], ids=["within", "one query", "across"])
def test_positions_shared_by_the_batch(at):
    scheme = dynamic()
    q, k = random(3, 2, len(at[0]), SIZE), random(3, 1, 48, SIZE, seed=1)
    scores = scheme.score({}, Tile(q, k, tokens(at), tokens([list(range(48))])))
    np.testing.assert_allclose(scores, naive_scores(scheme, q, k, at, [list(range(48))]), atol=2e-4)


@pytest.mark.parametrize("round_to", [4, 24])
@pytest.mark.parametrize("first", [0, 5], ids=["whole groups", "straddling"])
def test_queries_that_share_a_length_rotate_together(round_to, first, monkeypatch):
    monkeypatch.setattr(rotary, "AT_ONE_LENGTH", 4)
    scheme = dynamic(round_to=round_to, factor=2.0)
    at = np.arange(first, first + 24)[None]
    q, k = random(2, 4, 24, SIZE), random(2, 2, 30, SIZE, seed=1)
    scores = scheme.score({}, Tile(q, k, tokens(at), tokens([list(range(30))])))
    np.testing.assert_allclose(scores, naive_scores(scheme, q, k, at, [list(range(30))]), atol=2e-4)


def test_the_row_of_a_length_is_ntk_at_its_factor():
    length = 40
    q, k, at = random(1, 2, length, SIZE), random(1, 2, length, SIZE, seed=1), tokens([list(range(length))])
    row = dynamic().score({}, Tile(q, k, at, at))[:, :, -1]
    ntk = Rotary(scaling=NTKAware(factor=length / ORIGINAL))
    q, k = (jnp.swapaxes(ntk.rotate(jnp.swapaxes(x, 1, 2), at.position), 1, 2) for x in (q, k))
    np.testing.assert_allclose(row, jnp.einsum("bhk,bhtk->bht", q[:, :, -1], k), atol=2e-4)


def test_keys_stay_unrotated_and_the_length_must_be_known():
    x = random(1, 3, 2, SIZE)
    assert dynamic().rotate(x, jnp.array([[50, 51, 52]])) is x
    at = tokens([[0]])
    with pytest.raises(InvalidInput, match=r"^position\.scaling\.original_length = None"):
        Rotary(scaling=DynamicNTK()).score({}, Tile(random(1, 1, 1, SIZE), random(1, 1, 1, SIZE), at, at))


@pytest.mark.parametrize("first", [0, 20], ids=["within", "beyond"])
def test_gradients_of_dynamic_scores_are_those_of_a_naive_version(first, monkeypatch):
    monkeypatch.setattr(rotary, "GROUP_SIZE", 2**9)
    scheme = dynamic(layout="interleaved")
    position = tokens([list(range(first, first + 6))])
    q, k, weights = random(2, 4, 6, SIZE), random(2, 2, 6, SIZE, seed=1), random(2, 4, 6, 6, seed=2)

    def naive(q, k):
        frequency = scheme.scaling.frequencies_at(scheme.base, SIZE, position.position + 1)
        offset = position.position[:, None, :] - position.position[:, :, None]
        angle = offset[..., None] * frequency[:, :, None]
        keys = turn(
            jnp.repeat(k, 2, axis=1)[:, :, None], jnp.cos(angle)[:, None], jnp.sin(angle)[:, None], scheme.layout
        )
        return jnp.einsum("bhqk,bhqtk->bhqt", q, keys)

    @jax.jit
    def gradients(q, k):
        scores, vjp = jax.vjp(lambda q, k: scheme.score({}, Tile(q, k, position, position)), q, k)
        return scores, vjp(weights)

    scores, (d_q, d_k) = gradients(q, k)
    wanted, vjp = jax.vjp(naive, q, k)
    np.testing.assert_allclose(scores, wanted, atol=1e-5)
    for got, gradient in zip((d_q, d_k), vjp(weights), strict=True):
        np.testing.assert_allclose(got, gradient, atol=2e-5)


def test_memory_of_dynamic_scores_is_bounded_forward_and_backward(monkeypatch):
    monkeypatch.setattr(rotary, "GROUP_SIZE", 2**14)
    queries = keys = 256
    whole = 4 * queries * keys * SIZE  # bytes of one intermediate over all pairs
    at = tokens([list(range(queries))])

    def gradients(q, k, weights):
        return jax.vjp(lambda q, k: dynamic().score({}, Tile(q, k, at, at)), q, k)[1](weights)

    shapes = [random(1, 1, queries, SIZE), random(1, 1, keys, SIZE), random(1, 1, queries, keys)]
    compiled = jax.jit(gradients).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < whole

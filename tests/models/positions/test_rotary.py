import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.errors import InvalidInput
from models.positions import DynamicNTK, NTKAware, Rotary, Tile, Tokens, YaRN, rotary
from models.positions.rotary import turn
from models.positions.scaling import Linear, LongRoPE
from models.positions.scaling.rule import plain_frequencies
from tests.models.samples import compiled, random

SIZE, ORIGINAL = 8, 16


def tokens(positions) -> Tokens:
    positions = jnp.asarray(positions, jnp.int32)
    return Tokens(positions, jnp.zeros_like(positions))


def as_complex(x: np.ndarray, layout: str) -> np.ndarray:
    x = np.asarray(x, np.float64)
    half = x.shape[-1] // 2
    return x[..., :half] + 1j * x[..., half:] if layout == "half_split" else x[..., 0::2] + 1j * x[..., 1::2]


@functools.partial(compiled, static_argnums=0)
def rotated(scheme: Rotary, x: jax.Array, position: jax.Array) -> jax.Array:
    return scheme.rotate(x, position)


SHARES = [(1.0, "partial"), (0.5, "partial"), (0.75, "partial"), (0.5, "proportional"), (0.9, "proportional")]


def share_of(scheme: Rotary) -> tuple[int, int]:
    """The width and the number of pairs that are rotated, by their definitions."""
    if scheme.share_rule == "partial":
        return round(SIZE * scheme.share), SIZE // 2
    return SIZE, math.floor(scheme.share * SIZE / 2)


@pytest.mark.parametrize("share, share_rule", SHARES)
@pytest.mark.parametrize("layout", rotary.LAYOUTS)
def test_pairs_are_turned_by_position_times_frequency(layout, share, share_rule):
    scheme = Rotary(layout=layout, share=share, share_rule=share_rule)
    x, position = random(2, 5, 3, SIZE), np.array([[0, 1, 2, 50, 1000], [7, 7, 8, 9, 10]])
    turned = rotated(scheme, x, jnp.asarray(position))
    width, kept = share_of(scheme)
    angle = position[:, :, None] * np.where(np.arange(width // 2) < kept, plain_frequencies(10000.0, width), 0)
    wanted = as_complex(x[..., :width], layout) * np.exp(1j * angle)[:, :, None]
    np.testing.assert_allclose(as_complex(turned[..., :width], layout), wanted, atol=2e-4)
    np.testing.assert_array_equal(turned[..., width:], x[..., width:])


@pytest.mark.parametrize("share, share_rule", SHARES)
def test_the_layouts_are_permutations_of_each_other(share, share_rule):
    x, position = random(1, 6, 2, SIZE), jnp.arange(6)[None]
    half_split, interleaved = (Rotary(layout=name, share=share, share_rule=share_rule) for name in rotary.LAYOUTS)
    width = half_split.width(SIZE)
    to_interleaved = np.concatenate([np.arange(width).reshape(2, -1).T.ravel(), np.arange(width, SIZE)])
    wanted = np.asarray(rotated(half_split, x, position))[..., to_interleaved]
    np.testing.assert_allclose(rotated(interleaved, x[..., to_interleaved], position), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("share, share_rule", SHARES)
def test_scores_depend_on_distances_alone(share, share_rule):
    scheme = Rotary(share=share, share_rule=share_rule, scaling=YaRN(factor=2.0, original_length=ORIGINAL))
    q, k, at = random(1, 5, 2, SIZE), random(1, 5, 2, SIZE, seed=1), jnp.array([[0, 1, 5, 6, 20]])

    def scores(shift):
        return np.einsum("bqhk,bthk->bhqt", *(rotated(scheme, x, at + shift) for x in (q, k)))

    np.testing.assert_allclose(scores(1000), scores(0), atol=2e-3)
    assert np.abs(scores(0) - np.einsum("bqhk,bthk->bhqt", q, k)).max() > 0.1


def test_frequencies_of_a_share():
    partial = Rotary(share=0.5).frequencies(32)
    np.testing.assert_array_equal(partial, plain_frequencies(10000.0, 16))
    proportional = Rotary(share=0.25, share_rule="proportional", scaling=Linear(factor=8.0)).frequencies(32)
    np.testing.assert_array_equal(proportional, [*plain_frequencies(10000.0, 32)[:4] / 8, *[0.0] * 12])


def test_an_attention_factor_leaves_alone_what_is_not_rotated():
    x, at = random(1, 3, 2, SIZE), jnp.arange(3)[None]
    turned = Rotary(share=0.5, scaling=YaRN(original_length=ORIGINAL, attention_factor=2.0)).rotate(x, at)
    np.testing.assert_array_equal(turned[..., 4:], x[..., 4:])
    lengths = [np.linalg.norm(part[..., :4], axis=-1) for part in (turned, x)]
    np.testing.assert_allclose(lengths[0], 2 * lengths[1], rtol=1e-5)


def test_angles_are_exact_in_float32_while_vectors_are_bfloat16():
    x, position = random(1, 2, 1, SIZE).astype(jnp.bfloat16), jnp.array([[4093, 4095]])
    turned = Rotary().rotate(x, position)
    assert turned.dtype == jnp.bfloat16
    exact = Rotary().rotate(x.astype(jnp.float32), position)
    np.testing.assert_allclose(turned.astype(jnp.float32), exact, atol=0.02)


def angles_at(scheme: Rotary, position: int, head_size: int) -> np.ndarray:
    """By what each pair is turned at a position, in radians: of vectors (1, 0), with halves as pairs."""
    x = jnp.concatenate([jnp.ones(head_size // 2), jnp.zeros(head_size // 2)])[None, None, None]
    turned = as_complex(rotated(scheme, x, jnp.array([[position]])), "half_split")[0, 0, 0]
    return np.angle(turned)


def test_bfloat16_angles_fail_as_published():
    """At position 4095, from float64 angles; whole turns do not count."""
    exact = 4095 * plain_frequencies(10000.0, 128)
    near_4095 = {
        "float32": (0.0, 1e-3),
        "bfloat16_positions": (0.9, 1.1),  # 4095 becomes 4096
        "bfloat16_frequencies": (2.5, math.pi),
        "bfloat16": (2.5, math.pi),
    }
    assert set(near_4095) == set(rotary.ANGLES)
    for angles, (low, high) in near_4095.items():
        error = np.abs(np.angle(np.exp(1j * (angles_at(Rotary(angles=angles), 4095, 128) - exact)))).max()
        assert low <= error <= high, (angles, error)
    rounded = plain_frequencies(10000.0, 128).astype(np.float32).astype(jnp.bfloat16).astype(np.float64)
    np.testing.assert_allclose(
        np.exp(1j * angles_at(Rotary(angles="bfloat16_frequencies"), 4095, 128)), np.exp(4095j * rounded), atol=1e-3
    )
    assert 4 < np.abs(4095 * rounded - exact).max() < 6  # with whole turns


def test_bfloat16_has_769_of_the_positions_up_to_4095():
    x, positions = jnp.ones((1, 4096, 1, 2)), jnp.arange(4096)[None]
    distinct = {
        angles: len(np.unique(np.asarray(Rotary(angles=angles).rotate(x, positions)[0, :, 0]), axis=0))
        for angles in ("float32", "bfloat16_positions")
    }
    assert distinct == {"float32": 4096, "bfloat16_positions": 769}


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
    with pytest.raises(InvalidInput, match=r"^share = 1.5 is not allowed; it must be from 0 to 1$"):
        Rotary(share=1.5)
    with pytest.raises(InvalidInput, match=r"^share_rule = 'first' is not allowed; .* partial, proportional$"):
        Rotary(share_rule="first")
    with pytest.raises(InvalidInput, match=r"^angles = 'float16' is not allowed; .* float32, bfloat16_positions"):
        Rotary(angles="float16")
    for share in (0.0, 0.1, 0.4):
        with pytest.raises(InvalidInput, match=r"^share = 0.* of 8 here, is even and at least 2, not \d$"):
            Rotary(share=share).check(8)
    with pytest.raises(InvalidInput, match=r"^long_factor = .* a list of 2 numbers"):
        Rotary(share=0.5, scaling=LongRoPE(long_factor=(1.0, 2.0, 3.0))).check(8)


# Rules that depend on the length: every query at its own.


def scores_of(scheme: Rotary, q, k, query: Tokens, key: Tokens) -> jax.Array:
    """Compiled anew in every call, because some tests change the sizes of groups."""
    return compiled(lambda *tile: scheme.score({}, Tile(*tile)))(q, k, query, key)


LISTS = LongRoPE(
    factor=4.0, original_length=ORIGINAL, short_factor=(1.0, 1.1, 1.2, 1.3), long_factor=(1.5, 2.0, 4.0, 8.0)
)


def dynamic(**options) -> Rotary:
    layout = options.pop("layout", "half_split")
    return Rotary(layout=layout, scaling=DynamicNTK(**{"original_length": ORIGINAL, "round_to": 1} | options))


def own_frequencies(scheme: Rotary, position: int, width: int, kept: int) -> np.ndarray:
    """The definition in float64: those of a query at `position`."""
    rule = scheme.scaling
    if isinstance(rule, LongRoPE):
        divisors = rule.long_factor if position + 1 > ORIGINAL else rule.short_factor
        frequency = plain_frequencies(scheme.base, width) / np.resize(divisors, width // 2)
    else:
        length = ORIGINAL if position < ORIGINAL else -(-(position + 1) // rule.round_to) * rule.round_to
        stretch = max(1.0, rule.factor * length / ORIGINAL - (rule.factor - 1))
        frequency = plain_frequencies(scheme.base * stretch ** (width / (width - 2)), width)
    return np.where(np.arange(width // 2) < kept, frequency, 0)


def naive_scores(scheme: Rotary, q, k, query_position, key_position) -> np.ndarray:
    """The definition in float64, one pair of tokens at a time: the rotary frequencies of each query's own length."""
    width, kept = share_of(scheme)
    rest_q, rest_k = (np.asarray(x[..., width:], np.float64) for x in (q, k))
    q, k = as_complex(q[..., :width], scheme.layout), as_complex(k[..., :width], scheme.layout)
    batch, heads, queries, _ = q.shape
    per_group = heads // k.shape[1]
    scores = np.zeros((batch, heads, queries, k.shape[2]))
    bfloat16 = scheme.angles == "bfloat16_positions"
    for b, h, m, n in np.ndindex(*scores.shape):
        here, there = query_position[b % len(query_position)][m], key_position[b % len(key_position)][n]
        frequency = own_frequencies(scheme, here, width, kept)
        unscaled = np.where(np.arange(width // 2) < kept, plain_frequencies(scheme.base, width), 0)
        few = getattr(scheme.scaling, "unscaled_tokens", 0)
        at_query, at_key = (unscaled if at < few else frequency for at in (here, there))
        if bfloat16:
            here, there = (float(np.float32(at).astype(jnp.bfloat16)) for at in (here, there))
        turned_q, turned_k = (
            q[b, h, m] * np.exp(1j * here * at_query),
            k[b, h // per_group, n] * np.exp(1j * there * at_key),
        )
        scores[b, h, m, n] = scheme.scaling.amplitude() ** 2 * np.real(turned_q * np.conj(turned_k)).sum()
        scores[b, h, m, n] += rest_q[b, h, m] @ rest_k[b, h // per_group, n]
    return scores


@pytest.mark.parametrize("share, share_rule", [(0.5, "partial"), (0.9, "proportional")])
@pytest.mark.parametrize("rule", ["longrope", "dynamic_ntk"])
@pytest.mark.parametrize("at", [[[47]], [[14, 15, 16, 40]]], ids=["beyond", "across"])
def test_scores_of_a_share_at_own_lengths(share, share_rule, rule, at):
    if rule == "dynamic_ntk":
        scaling = DynamicNTK(original_length=ORIGINAL, round_to=1)
    else:
        pairs = round(SIZE * share) // 2 if share_rule == "partial" else SIZE // 2
        scaling = LongRoPE(4.0, ORIGINAL, LISTS.short_factor[:pairs], LISTS.long_factor[:pairs])
    scheme = Rotary(layout="interleaved", share=share, share_rule=share_rule, scaling=scaling)
    q, k = random(2, 4, len(at[0]), SIZE), random(2, 2, 48, SIZE, seed=1)
    scores = scores_of(scheme, q, k, tokens(at), tokens([list(range(48))]))
    np.testing.assert_allclose(scores, naive_scores(scheme, q, k, at, [list(range(48))]), atol=2e-4)


def test_longrope_changes_lists_at_the_query_that_is_one_too_many(monkeypatch):
    monkeypatch.setattr(rotary, "AT_ONE_LENGTH", 8)
    scheme, at = Rotary(scaling=LISTS), np.arange(3, 27)[None]
    q, k = random(2, 4, 24, SIZE), random(2, 2, 30, SIZE, seed=1)
    scores = scores_of(scheme, q, k, tokens(at), tokens([list(range(30))]))
    np.testing.assert_allclose(scores, naive_scores(scheme, q, k, at, [list(range(30))]), atol=2e-4)


@pytest.mark.parametrize("at", [[[60, 101]], [[7, 101]]], ids=["one length", "own lengths"])
@pytest.mark.parametrize("share", [{}, {"share": 0.9, "share_rule": "proportional"}], ids=["whole", "proportional"])
def test_first_tokens_keep_the_plain_frequencies_whoever_looks_at_them(at, share):
    scheme = Rotary(scaling=dataclasses.replace(LISTS, unscaled_tokens=5), **share)
    q, k, there = random(1, 2, 2, SIZE), random(1, 1, 6, SIZE, seed=1), [[0, 1, 4, 5, 59, 98]]
    scores = scores_of(scheme, q, k, tokens(at), tokens(there))
    np.testing.assert_allclose(scores, naive_scores(scheme, q, k, at, there), atol=2e-4)
    scaled = np.abs(scores - scores_of(Rotary(scaling=LISTS, **share), q, k, tokens(at), tokens(there))).max((0, 1, 2))
    assert (scaled[1:3] > 0.01).all() and (scaled[3:] < 2e-4).all()


@pytest.mark.parametrize("at", [[[300, 1001]], [[5, 1001]]], ids=["one length", "own lengths"])
def test_rounded_positions_have_rounded_distances_under_own_lengths_too(at):
    scheme = Rotary(scaling=LISTS, angles="bfloat16_positions")
    q, k, there = random(1, 2, 2, SIZE), random(1, 1, 4, SIZE, seed=1), [[3, 299, 600, 998]]
    scores = scores_of(scheme, q, k, tokens(at), tokens(there))
    np.testing.assert_allclose(scores, naive_scores(scheme, q, k, at, there), atol=1e-3)
    exact = scores_of(Rotary(scaling=LISTS), q, k, tokens(at), tokens(there))
    assert np.abs(scores - exact).max() > 0.05


@pytest.mark.parametrize("layout", rotary.LAYOUTS)
@pytest.mark.parametrize("factor, group_size", [(1.0, 1), (4.0, 2**9), (1.0, 2**21)])
def test_scores_at_own_length_are_the_definition(layout, factor, group_size, monkeypatch):
    monkeypatch.setattr(rotary, "GROUP_SIZE", group_size)
    scheme = dynamic(layout=layout, factor=factor)
    query_position = np.array([[3, 15, 16, 30, 40], [39, 40, 41, 0, 1]])
    key_position = np.array([list(range(0, 42, 6)), list(range(7))])
    q, k = random(2, 4, 5, SIZE), random(2, 2, 7, SIZE, seed=1)
    scores = scores_of(scheme, q, k, tokens(query_position), tokens(key_position))
    assert scores.dtype == jnp.float32
    np.testing.assert_allclose(scores, naive_scores(scheme, q, k, query_position, key_position), atol=2e-4)


@pytest.mark.parametrize("at", [[[0, 5, 15]], [[47]], [[14, 15, 16]]], ids=["within", "one query", "across"])
def test_positions_shared_by_the_batch(at):
    scheme = dynamic()
    q, k = random(3, 2, len(at[0]), SIZE), random(3, 1, 48, SIZE, seed=1)
    scores = scores_of(scheme, q, k, tokens(at), tokens([list(range(48))]))
    np.testing.assert_allclose(scores, naive_scores(scheme, q, k, at, [list(range(48))]), atol=2e-4)


@pytest.mark.parametrize("round_to", [4, 24])
@pytest.mark.parametrize("first", [0, 5], ids=["whole groups", "straddling"])
def test_queries_that_share_a_length_rotate_together(round_to, first, monkeypatch):
    monkeypatch.setattr(rotary, "AT_ONE_LENGTH", 4)
    scheme = dynamic(round_to=round_to, factor=2.0)
    at = np.arange(first, first + 24)[None]
    q, k = random(2, 4, 24, SIZE), random(2, 2, 30, SIZE, seed=1)
    scores = scores_of(scheme, q, k, tokens(at), tokens([list(range(30))]))
    np.testing.assert_allclose(scores, naive_scores(scheme, q, k, at, [list(range(30))]), atol=2e-4)


def test_the_row_of_a_length_is_ntk_at_its_factor():
    length = 40
    q, k, at = random(1, 2, length, SIZE), random(1, 2, length, SIZE, seed=1), tokens([list(range(length))])
    row = scores_of(dynamic(), q, k, at, at)[:, :, -1]
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

    @compiled
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

"""What schemes add to the embeddings against their formulas in float64, and the positions that transforms draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.positions import BaseN, Learned, Sinusoidal
from models.positions.index import Interpolated, Randomized, Shifted
from tests.models.samples import compiled, random, tokens_at

WIDTH = 24
NEAR, FAR = np.arange(60), np.array([511, 4095, 100_003])


def embed(scheme, position, parameters=None):
    added = compiled(lambda at: scheme.embed(parameters or {}, at, WIDTH))(jnp.asarray(position)[None])
    return np.asarray(added)[0]


@pytest.mark.conformance("position sinusoidal", reference="Vaswani et al. 2017, section 3.5")
def test_interleaved_sinusoids(conforms):
    """PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i + 1) = cos(…)."""
    got = embed(Sinusoidal(layout="interleaved"), NEAR)
    wanted = np.zeros((len(NEAR), WIDTH))
    for position, i in np.ndindex(len(NEAR), WIDTH // 2):
        angle = position / 10000 ** (2 * i / WIDTH)
        wanted[position, 2 * i : 2 * i + 2] = np.sin(angle), np.cos(angle)
    conforms(got, wanted, tolerance=1e-5)


@pytest.mark.conformance("position sinusoidal", reference="tensor2tensor's layout: sines, then cosines")
def test_concatenated_sinusoids(conforms):
    angle = np.outer(NEAR, 10000.0 ** (-np.arange(WIDTH // 2) / (WIDTH // 2)))
    conforms(embed(Sinusoidal(), NEAR), np.concatenate([np.sin(angle), np.cos(angle)], axis=1), tolerance=1e-5)


@pytest.mark.conformance("position sinusoidal", reference="sines of angles that are products in float32")
def test_far_sinusoids_are_those_of_angles_in_single_precision(conforms):
    """The angle at 100,003 is a number of float32, up to 0.004 apart: sine and cosine add nothing to that error."""
    frequency = (10000.0 ** (-np.arange(WIDTH // 2) / (WIDTH // 2))).astype(np.float32)
    angle = (FAR.astype(np.float32)[:, None] * frequency).astype(np.float64)
    conforms(embed(Sinusoidal(), FAR), np.concatenate([np.sin(angle), np.cos(angle)], axis=1), tolerance=1e-6)


@pytest.mark.conformance("index interpolated", reference="Chen et al. 2023, section 2.3, under sinusoids")
def test_interpolated_sinusoids(conforms):
    scheme = Sinusoidal(index=Interpolated(3.0))
    angle = np.outer(NEAR / 3, 10000.0 ** (-np.arange(WIDTH // 2) / (WIDTH // 2)))
    wanted = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    conforms(embed(scheme, scheme.place(tokens_at(NEAR[None]))[0]), wanted, tolerance=1e-5)


@pytest.mark.conformance("position learned", reference="rows of the table itself (Gehring et al. 2017)")
def test_learned(conforms):
    table = random(70, WIDTH)
    conforms(embed(Learned(length=70), NEAR[::-1], {"table": table}), np.asarray(table)[NEAR[::-1]], tolerance=0)


@pytest.mark.conformance("index shifted", reference="Kiyono et al. 2021, SHAPE: row t + u of a table")
def test_shifted_rows(conforms):
    """One u for all tokens of a row, 0 … maximum, which differs between rows."""
    table, index = random(80, WIDTH), Shifted(maximum=20)
    drawn = np.asarray(index.draw(jax.random.key(2), jnp.arange(60)[None], 3, 60, training=True))
    shifts = drawn[:, :1]
    assert len(np.unique(shifts)) > 1 and shifts.min() >= 0 and shifts.max() <= 20
    for row, (shift,) in zip(drawn, shifts, strict=True):
        conforms(embed(Learned(length=80), row, {"table": table}), np.asarray(table)[shift : shift + 60], tolerance=0)


@pytest.mark.conformance("index randomized", reference="Ruoss et al. 2023, section 3: a sorted sample of rows")
def test_rows_of_a_sorted_sample(conforms):
    """T different numbers below the maximum, in order, all equally likely: the mean of the i-th is (M + 1)i/(T + 1)."""
    table, index, maximum, length = random(40, WIDTH), Randomized(maximum=40), 40, 9
    keys = jax.random.split(jax.random.key(7), 4000)
    draw = compiled(jax.vmap(lambda key: index.draw(key, jnp.arange(length)[None], 1, length, True)))
    drawn = np.asarray(draw(keys))[:, 0]
    assert (np.diff(drawn) > 0).all() and drawn.min() == 0 and drawn.max() == maximum - 1
    expected = (maximum + 1) * np.arange(1, length + 1) / (length + 1) - 1
    np.testing.assert_allclose(drawn.mean(axis=0), expected, atol=0.5)
    sample = set(drawn[0].tolist())
    wanted = np.array([row for place, row in enumerate(np.asarray(table)) if place in sample])
    conforms(embed(Learned(length=40), drawn[0], {"table": table}), wanted, tolerance=0)


def digits(number: int, base: int, places: int) -> list[int]:
    """Of a number, the last first, by the way they are written."""
    return [int(digit, base) for digit in np.base_repr(number, base).zfill(places)[::-1]]


@pytest.mark.conformance("position base_n", reference="Su 2023, part 10: a table for each digit")
def test_learned_digits(conforms):
    scheme, table = BaseN(base=7, digits=3), random(3, 7, WIDTH)
    numbers = np.arange(0, 343, 5)
    exact = np.asarray(table, np.float64)
    wanted = [sum(exact[place, digit] for place, digit in enumerate(digits(n, 7, 3))) for n in numbers]
    conforms(embed(scheme, numbers, {"table": table}), wanted, tolerance=1e-6)


@pytest.mark.conformance("position base_n", reference="Su 2023, part 10, sinusoids of each digit")
def test_sinusoidal_digits(conforms):
    part, numbers = WIDTH // 3, np.arange(0, 343, 5)
    frequency = 7.0 ** (-2 * np.arange(part // 2) / part)
    wanted = [
        np.concatenate([f(digit * frequency) for digit in digits(n, 7, 3) for f in (np.sin, np.cos)]) for n in numbers
    ]
    conforms(embed(BaseN(base=7, digits=3, kind="sinusoidal"), numbers), wanted, tolerance=1e-6)

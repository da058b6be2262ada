"""The evolution on scores without a model: it finds a known optimum, keeps to its space, and repeats itself."""

import math

import numpy as np
import pytest

from experiments.longrope.evolution import STEP, Candidate, evolve, space_of
from models.errors import InvalidInput

FACTOR = 8.0
SPACE = space_of(FACTOR, 128)
BEST = Candidate((1.0, 1.0, 1.2, 2.0, 3.5, 6.0, 7.5, 9.0), 4)
STARTS = [Candidate((FACTOR,) * 8), Candidate(tuple(float(FACTOR ** (i / 7)) for i in range(8)))]


def distance(candidate):
    """0 for the best one alone."""
    steps = np.log(np.array(candidate.factors) / BEST.factors)
    unscaled = abs(SPACE.unscaled.index(candidate.unscaled_tokens) - SPACE.unscaled.index(BEST.unscaled_tokens))
    return float(np.square(steps).sum() + 0.01 * unscaled)


def test_a_known_optimum_is_found_in_order_and_within_the_space():
    tried = []

    def score(candidate):
        tried.append(candidate)
        return distance(candidate)

    bests = []
    report = lambda generation, ranked: bests.append(ranked[0].score)  # noqa: E731
    found = evolve(score, STARTS, SPACE, population=64, generations=60, seed=0, report=report)
    assert found[0].candidate.unscaled_tokens == BEST.unscaled_tokens
    np.testing.assert_allclose(found[0].candidate.factors, BEST.factors, rtol=0.08)
    assert found[0].score == bests[-1] and bests == sorted(bests, reverse=True) and len(bests) == 61
    assert min(distance(start) for start in STARTS) > 10 * bests[-1]
    assert len(set(tried)) == len(tried) <= 64 + 60 * 32
    for factors, unscaled in tried:
        assert list(factors) == sorted(factors) and factors[0] >= 1 and factors[-1] <= 1.25 * FACTOR
        assert unscaled in SPACE.unscaled
    for factors, _ in tried[len(STARTS) :]:
        np.testing.assert_allclose(np.array(factors) / STEP, np.round(np.array(factors) / STEP), atol=1e-3)


def test_an_optimum_out_of_order_is_approached_as_far_as_order_allows():
    """The best non-decreasing list for targets 4 and 2, in squared logarithms, is their geometric mean twice."""
    score = lambda one: float(np.square(np.log(np.array(one.factors) / (4.0, 2.0))).sum())  # noqa: E731
    found = evolve(score, [Candidate((8.0, 8.0))], SPACE, population=32, generations=150, seed=1)
    np.testing.assert_allclose(found[0].candidate.factors, [math.sqrt(8)] * 2, rtol=0.02)


def test_the_same_seed_finds_the_same_and_another_seed_another():
    one, same, other = (evolve(distance, STARTS, SPACE, 16, 3, seed=seed) for seed in (3, 3, 4))
    assert one == same != other


def test_a_score_that_is_not_finite_is_the_worst():
    found = evolve(lambda one: math.nan if one.unscaled_tokens else 1.0, STARTS, SPACE, 16, 2, seed=0)
    assert found[0].score == 1.0 and found[-1].score in (1.0, math.inf)


def test_tokens_beyond_the_original_length_are_never_left_unscaled():
    assert space_of(4.0, 16).unscaled == (0, 1, 2, 4, 8, 12, 16)
    assert (space_of(4.0, 16).least, space_of(4.0, 16).greatest) == (1.0, 5.0)


@pytest.mark.parametrize(
    ("population", "generations", "words"), [(3, 1, "population = 3"), (8, -1, "generations = -1")]
)
def test_sizes_that_cannot_be(population, generations, words):
    with pytest.raises(InvalidInput, match=words):
        evolve(distance, STARTS, SPACE, population, generations, seed=0)

"""An evolution of LongRoPE's candidates: a pure function of a score, a space, sizes and a seed.

Source: Ding et al. (2024), "LongRoPE: Extending LLM Context Window Beyond 2 Million Tokens", section 3.2, where 64
candidates evolve over 40 generations. Here a factor mutates by a normal step of its logarithm, and what a mutation or a
crossover leaves out of order is put in order.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from models.errors import require

# The numbers of the paper: how probably each number of a candidate mutates, what factors are rounded to, how far beyond
# the extension they may go, and the counts of unscaled tokens that are tried.
MUTATION = 0.3
STEP = 0.01
SLACK = 1.25
UNSCALED = (0, 1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 64, 128, 256)
SPREADS = (0.02, 0.4)  # standard deviations of a step, of which each mutation draws one


class Candidate(NamedTuple):
    """factors: λ of each rotary pair from the highest frequency to the lowest, never decreasing. unscaled_tokens: n̂."""

    factors: tuple[float, ...]
    unscaled_tokens: int = 0


class Scored(NamedTuple):
    """A candidate and its score, of which less is better; infinite where the score was not finite."""

    candidate: Candidate
    score: float


class Space(NamedTuple):
    """Where candidates lie: least ≤ λ_i ≤ λ_{i+1} ≤ greatest, n̂ one of `unscaled`."""

    least: float
    greatest: float
    unscaled: tuple[int, ...]


def space_of(factor: float, original_length: int) -> Space:
    """The paper's space for a context of `factor` times the original length, in tokens."""
    return Space(1.0, SLACK * factor, tuple(count for count in UNSCALED if count <= original_length))


def evolve(
    score: Callable[[Candidate], float],
    starts: Sequence[Candidate],
    space: Space,
    population: int,
    generations: int,
    seed: int,
    report: Callable[[int, list[Scored]], None] = lambda generation, ranked: None,
) -> list[Scored]:
    """The last population, best first; its best is never worse than a start.

    The first population is the starts and mutations of them. Each generation then is the better half of the one before,
    mutations of these, a quarter of `population`, and as many crossovers of two of them. No candidate is scored twice.
    `report` is called with each population, the first as generation 0. Raises InvalidInput where `population` is below
    4 or holds not all starts, or `generations` is below 0.
    """
    least = max(4, len(starts))
    require(population >= least, "population", population, f"at least {least}")
    require(generations >= 0, "generations", generations, "at least 0")
    rng = np.random.default_rng(seed)
    known: dict[Candidate, float] = {}

    def ranked(candidates: Iterable[Candidate]) -> list[Scored]:
        different = list(dict.fromkeys(candidates))
        for one in different:
            if one not in known:
                value = float(score(one))
                known[one] = value if math.isfinite(value) else math.inf
        return sorted((Scored(one, known[one]) for one in different), key=lambda scored: scored.score)

    more = [mutated(rng, starts[i % len(starts)], space) for i in range(population - len(starts))]
    present = ranked([*starts, *more])
    report(0, present)
    for generation in range(1, generations + 1):
        parents = [scored.candidate for scored in present[: population // 2]]

        def parent(parents=parents) -> Candidate:
            return parents[rng.integers(len(parents))]

        mutations = [mutated(rng, parent(), space) for _ in range(population // 4)]
        crossovers = [crossed(rng, parent(), parent(), space) for _ in range(population // 4)]
        present = ranked([*parents, *mutations, *crossovers])
        report(generation, present)
    return present


def mutated(rng: np.random.Generator, candidate: Candidate, space: Space) -> Candidate:
    """The candidate with each of its numbers changed at the probability MUTATION."""
    low, high = np.log(SPREADS)
    spread = math.exp(rng.uniform(low, high))
    factors = np.array(candidate.factors)
    changes = rng.random(len(factors)) < MUTATION
    factors = np.where(changes, factors * np.exp(spread * rng.normal(size=len(factors))), factors)
    unscaled = candidate.unscaled_tokens
    if rng.random() < MUTATION:
        unscaled = int(rng.choice(space.unscaled))
    return Candidate(in_order(factors, space), unscaled)


def crossed(rng: np.random.Generator, one: Candidate, other: Candidate, space: Space) -> Candidate:
    """Each number of one of two candidates, drawn by itself."""
    takes = rng.random(len(one.factors)) < 0.5
    unscaled = (one if rng.random() < 0.5 else other).unscaled_tokens
    return Candidate(in_order(np.where(takes, one.factors, other.factors), space), unscaled)


def in_order(factors: np.ndarray, space: Space) -> tuple[float, ...]:
    """Factors within the space, rounded to STEP, from the smallest to the largest."""
    kept = np.clip(np.round(factors / STEP) * STEP, space.least, space.greatest)
    return tuple(round(float(factor), 6) for factor in np.sort(kept))

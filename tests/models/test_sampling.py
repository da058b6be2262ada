"""Which tokens may come next and how often, against what transformers computed."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.errors import InvalidInput
from models.sampling import Sampler, top_k, top_p
from tests.models.samples import random

GOLDEN = json.loads((pathlib.Path(__file__).parent.parent / "goldens" / "logits_processors.json").read_text())
LOGITS = jnp.asarray(GOLDEN["logits"], jnp.float32)


def golden(case: str) -> np.ndarray:
    return np.array([[-np.inf if x is None else x for x in row] for row in GOLDEN["processed"][case]])


@pytest.mark.parametrize(
    ("case", "processed"),
    [
        ("temperature_0.7", lambda x: x / 0.7),
        ("top_k_5", lambda x: top_k(x, 5)),
        ("top_p_0.8", lambda x: top_p(x, 0.8)),
        ("top_p_0.3", lambda x: top_p(x, 0.3)),
    ],
)
def test_processed_logits_match_the_goldens(case, processed):
    np.testing.assert_allclose(processed(LOGITS), golden(case), rtol=1e-5, atol=1e-5)


def test_greedy_takes_the_largest():
    sampler = Sampler(temperature=0, top_k=3, top_p=0.5)
    for seed in range(3):
        new = sampler.sample(LOGITS, jax.random.key(seed))
        assert new.dtype == jnp.int32
        np.testing.assert_array_equal(new, np.argmax(LOGITS, axis=-1))


@pytest.mark.parametrize(
    "sampler",
    [
        Sampler(),
        Sampler(0.7, 5, 0.9),
        Sampler(top_k=3, top_p=0.8),
        Sampler(1.3, top_p=0.8),
        Sampler(top_k=1),
        Sampler(5.0, top_p=1e-6),
    ],
)
def test_frequencies_are_the_probabilities_of_what_is_kept(sampler):
    """Temperature first, then top-k, then top-p of what is left: written out with plain sorting."""
    logits, draws = np.asarray(random(7, seed=2)), 40_000
    order = np.argsort(-logits)
    weights = np.exp(logits[order] / sampler.temperature)
    weights[sampler.top_k or len(weights) :] = 0
    weights /= weights.sum()
    weights[np.cumsum(weights) - weights >= sampler.top_p] = 0
    wanted = np.zeros_like(weights)
    wanted[order] = weights / weights.sum()
    new = sampler.sample(jnp.tile(logits, (draws, 1)), jax.random.key(3))
    frequency = np.bincount(new, minlength=7) / draws
    assert (frequency[wanted == 0] == 0).all()
    # Five standard deviations.
    assert (np.abs(frequency - wanted) <= 5 * np.sqrt(wanted * (1 - wanted) / draws) + 1e-9).all()


@pytest.mark.parametrize("sampler", [Sampler(0), Sampler(3.0), Sampler(1.0, 2, 0.9)])
def test_ids_beyond_the_vocabulary_are_never_drawn(sampler):
    """Whatever their logits; among the others it is as if there were no more."""
    logits, draws = jnp.tile(random(7, seed=2).at[5:].add(9.0), (200, 1)), jax.random.key(3)
    assert sampler.sample(logits, draws).max() >= 5
    known = dataclasses.replace(sampler, vocabulary_size=5)
    np.testing.assert_array_equal(known.sample(logits, draws), sampler.sample(logits[:, :5], draws))


def test_keeping_everything_changes_nothing():
    for same in (top_k(LOGITS, 0), top_k(LOGITS, LOGITS.shape[1]), top_k(LOGITS, 1000), top_p(LOGITS, 1.0)):
        np.testing.assert_array_equal(same, LOGITS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": -0.1}, r"^temperature = -0\.1 is not allowed; it must be at least 0"),
        ({"temperature": float("nan")}, r"^temperature = nan"),
        ({"top_k": -1}, r"^top_k = -1 is not allowed; it must be at least 0"),
        ({"vocabulary_size": 0}, r"^vocabulary_size = 0 is not allowed; it must be at least 1, or None"),
        ({"top_p": 0.0}, r"^top_p = 0\.0 is not allowed; it must be above 0 and at most 1$"),
        ({"top_p": 1.1}, r"^top_p = 1\.1 "),
    ],
)
def test_refused(fields, message):
    with pytest.raises(InvalidInput, match=message):
        Sampler(**fields)

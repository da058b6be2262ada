"""Learning rates at the points that define each schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InvalidInput
from train.schedules import Constant, Cosine, Linear, Schedule, WarmupStableDecay


def values(schedule, steps, at, peak=2.0):
    rate = schedule.build(peak, steps)
    return [float(rate(step)) for step in at]


def test_warmup_rises_linearly_and_learns_from_the_first_step():
    for name in Schedule.registry:
        schedule = Schedule.registry[name](warmup=10)
        assert values(schedule, 110, [0, 4, 9, 10]) == pytest.approx([0.2, 1.0, 2.0, 2.0])


def test_cosine_falls_to_its_final_share():
    assert values(Cosine(warmup=10, final=0.1), 110, [60, 110, 500]) == pytest.approx([1.1, 0.2, 0.2])


def test_linear_falls_to_zero():
    assert values(Linear(warmup=10), 110, [35, 60, 110]) == pytest.approx([1.5, 1.0, 0.0])


def test_wsd_is_stable_then_decays():
    schedule = WarmupStableDecay(warmup=10, decay=0.2)
    assert values(schedule, 110, [50, 90, 100, 110]) == pytest.approx([2.0, 2.0, 1.0, 0.0], abs=1e-6)


def test_constant_stays():
    assert values(Constant(warmup=0), 5, [0, 4, 9]) == [2.0, 2.0, 2.0]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(Schedule.registry)), st.integers(0, 50), st.integers(1, 500))
def test_rates_are_positive_and_only_fall_after_the_warmup(name, warmup, rest):
    rates = np.asarray(Schedule.registry[name](warmup=warmup).build(3e-3, warmup + rest)(np.arange(600)))
    assert rates.dtype == np.float32
    assert np.all(rates[: warmup + rest] > 0) and np.all(rates <= np.float32(3e-3) * (1 + 1e-6))
    assert np.all(np.diff(rates)[max(warmup, 1) - 1 :] <= 1e-9)
    assert np.ptp(rates[warmup + rest :]) < 1e-9


def test_under_jit_a_rate_is_float32_and_equal():
    rate = Cosine(warmup=3).build(1.0, 40)
    jitted = jax.jit(rate)(jnp.int32(17))
    assert jitted.dtype == jnp.float32 and float(jitted) == pytest.approx(float(rate(17)), rel=1e-6)


def test_warmup_must_end_before_the_run():
    with pytest.raises(InvalidInput, match=r"warmup = 100 .*below the run's 100 steps"):
        Cosine(warmup=100).build(1.0, 100)


@pytest.mark.parametrize(
    ("kind", "fields", "name"),
    [
        (Cosine, {"warmup": -1}, "warmup"),
        (Cosine, {"final": 1.5}, "final"),
        (Linear, {"final": -0.1}, "final"),
        (WarmupStableDecay, {"decay": 0.0}, "decay"),
    ],
)
def test_a_field_out_of_range_is_named(kind, fields, name):
    with pytest.raises(InvalidInput, match=f"^{name} = "):
        kind(**fields)

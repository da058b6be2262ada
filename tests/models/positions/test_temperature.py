import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidInput
from models.positions.temperature import (
    Constant,
    DroPETemperature,
    Llama4Temperature,
    LogN,
    NoTemperature,
    ScalableSoftmax,
    Temperature,
    YaRNTemperature,
)
from tests.models.samples import filled

POSITION = jnp.array([[0, 1, 6, 7, 100], [3, 5000, 8191, 8192, 10**6]])
EVERY = {name: filled(cls, original_length=8, factor=4.0) for name, cls in Temperature.registry.items()}


def fresh(temperature: Temperature, heads: int) -> dict[str, jax.Array]:
    specs = temperature.parameters(heads).items()
    return {name: spec.initializer(jax.random.key(0), spec.shape, jnp.float32) for name, spec in specs}


def test_the_registry_holds_the_family_by_its_names():
    assert set(EVERY) == {"none", "constant", "yarn", "log_n", "scalable_softmax", "llama4", "drope"}
    with pytest.raises(InvalidInput, match=r"^temperature\.name = 'hot' is not allowed; .* one of none, .*drope"):
        Temperature.registry["hot"]


@pytest.mark.parametrize("temperature", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("heads", [1, 3])
def test_a_number_for_every_query_and_perhaps_head(temperature, heads):
    assert hash(temperature) == hash(dataclasses.replace(temperature))
    scale = temperature.scale(fresh(temperature, heads), POSITION)
    if temperature.name == "none":
        assert scale is None
        return
    assert scale.dtype == jnp.float32
    assert scale.shape == (*POSITION.shape, heads if temperature.parameters(heads) else 1)
    assert np.isfinite(scale).all() and (scale >= 0).all()
    np.testing.assert_array_equal(temperature.scale(fresh(temperature, heads), POSITION[:, 1:2]), scale[:, 1:2])


@pytest.mark.parametrize("temperature", [NoTemperature(), Constant(), YaRNTemperature(), DroPETemperature()])
def test_without_extension_scores_stay_as_they_are(temperature):
    scale = temperature.scale({}, POSITION)
    assert scale is None or (scale == 1).all()


@given(st.integers(2, 10_000), st.integers(0, 100_000))
def test_log_n_is_one_within_the_original_length_and_logarithmic_beyond(length, position):
    got = float(LogN(length).scale({}, jnp.array([[position]]))[0, 0, 0])
    wanted = 1.0 if position < length else math.log(position + 1) / math.log(length)
    assert got == pytest.approx(wanted, rel=1e-6)


def test_scalable_softmax_starts_at_a_mean_of_one_over_the_original_length():
    temperature = ScalableSoftmax(1024)
    scale = temperature.scale(fresh(temperature, 2), jnp.arange(1024)[None])
    np.testing.assert_allclose(scale.mean(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(fresh(temperature, 2)["s"], 0.168, atol=5e-4)
    assert temperature.parameters(2)["s"].axes == ("heads",)


def test_scalable_softmax_learns_per_head_and_gives_the_first_token_nothing_to_choose():
    scale = ScalableSoftmax(8).scale({"s": jnp.array([0.5, 2.0])}, POSITION)
    np.testing.assert_array_equal(scale[0, 0], 0.0)
    np.testing.assert_allclose(scale[0, 4], np.array([0.5, 2.0]) * math.log(101), rtol=1e-6)


def test_llama_4_steps_up_at_multiples_of_the_floor_length():
    scale = np.asarray(Llama4Temperature(0.2, 4).scale({}, jnp.arange(12)[None]))[0, :, 0]
    np.testing.assert_allclose(scale, 1 + 0.2 * np.log1p([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3]), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Constant(0.0), "value = 0.0 is not allowed; it must be a finite number above 0"),
        (lambda: YaRNTemperature(0.5), "factor = 0.5 is not allowed; it must be a finite number of at least 1"),
        (lambda: DroPETemperature(math.inf), "factor = inf is not allowed"),
        (lambda: DroPETemperature(c=-1.0), "c = -1.0 is not allowed"),
        (lambda: LogN(1), "original_length = 1 is not allowed; it must be at least 2"),
        (lambda: Llama4Temperature(floor_length=0), "floor_length = 0 is not allowed; it must be at least 1"),
        (lambda: Llama4Temperature(math.nan), "strength = nan is not allowed"),
        (
            lambda: LogN().scale({}, POSITION),
            "temperature.original_length = None is not allowed; .* trained at",
        ),
        (lambda: ScalableSoftmax().parameters(2), "temperature.original_length = None is not allowed"),
    ],
)
def test_refuses_what_cannot_be(make, said):
    with pytest.raises(InvalidInput, match=f"^{said}"):
        make()

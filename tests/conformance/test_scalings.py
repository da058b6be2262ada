"""RoPE scalings against their papers' formulas, one pair of numbers at a time in float64: frequencies, and what a layer
makes of them."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from models.positions import Rotary
from models.positions.scaling import (
    DynamicNTK,
    FixedNTK,
    Linear,
    Llama3,
    LongRoPE,
    MixedNTK,
    NoScaling,
    NTKAware,
    NTKByParts,
    YaRN,
)
from tests.conformance.layer import LENGTH, SIZE, by_definition, by_module, turned
from tests.conformance.rows import cases
from tests.models.samples import compiled

BASE, FACTOR = 10000.0, 4.0


def theta(i: int, width: int, base: float = BASE) -> float:
    return base ** (-2 * i / width)


def clip(x: float) -> float:
    return min(max(x, 0.0), 1.0)


def by_parts(original: int, low: float, high: float):
    """Peng et al. 2023, definition 2: γ over the ratio of the original length to the wavelength."""

    def frequency(i, width):
        ratio = original / (2 * math.pi / theta(i, width))
        gamma = clip((ratio - low) / (high - low))
        return (1 - gamma) * theta(i, width) / FACTOR + gamma * theta(i, width)

    return frequency


def by_wavelength(original: int, low: float = 1.0, high: float = 4.0):
    """Llama 3.1: by comparing wavelengths."""

    def frequency(i, width):
        wavelength = 2 * math.pi / theta(i, width)
        if wavelength < original / high:
            return theta(i, width)
        if wavelength > original / low:
            return theta(i, width) / FACTOR
        smooth = (original / wavelength - low) / (high - low)
        return (1 - smooth) * theta(i, width) / FACTOR + smooth * theta(i, width)

    return frequency


def by_index(original: int, truncate: bool):
    """YaRN as its authors run it: from the index that turns 32 times to the one that turns once."""

    def frequency(i, width):
        ends = [width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(BASE)) for turns in (32, 1)]
        low, high = (math.floor(ends[0]), math.ceil(ends[1])) if truncate else ends
        low, high = max(low, 0), min(high, width - 1)
        interpolated = clip((i - low) / (high - low))
        return theta(i, width) * (1 - interpolated) + theta(i, width) / FACTOR * interpolated

    return frequency


def ntk(stretch: float):
    return lambda i, width: theta(i, width, BASE * stretch ** (width / (width - 2)))


def mixed(i, width, exponent=0.625):
    a = math.log(FACTOR) / (width / 2) ** exponent
    return theta(i, width) * math.exp(-a * (i + 1) ** exponent)


def yarn_temperature(factor: float) -> float:
    return 0.1 * math.log(factor) + 1


# Rule, its frequency of pair i of a width, what cosines and sines are multiplied by, reference.
CASES = {
    "none": (NoScaling(), theta, 1.0, "Su et al. 2021, equation 15"),
    "linear": (Linear(FACTOR), lambda i, width: theta(i, width) / FACTOR, 1.0, "Chen et al. 2023, section 2.3"),
    "ntk": (NTKAware(FACTOR), ntk(FACTOR), 1.0, "Peng et al. 2023, section 3.1"),
    "fixed_ntk": (
        FixedNTK(FACTOR),
        lambda i, width: theta(i, width, BASE * FACTOR) / FACTOR ** (2 / width),
        1.0,
        "Su 2023, part 11, fixed",
    ),
    "mixed_ntk": (MixedNTK(FACTOR), mixed, 1.0, "Su 2023, part 11, mixed"),
    "ntk_by_parts": (
        NTKByParts(FACTOR, original_length=1000),
        by_parts(1000, 1.0, 32.0),
        1.0,
        "Peng et al. 2023, section 3.2",
    ),
    "yarn paper": (
        YaRN(FACTOR, original_length=1000, ramp="paper"),
        by_parts(1000, 1.0, 32.0),
        yarn_temperature(FACTOR),
        "Peng et al. 2023, section 3.2 and 3.4",
    ),
    "yarn code": (
        YaRN(FACTOR, original_length=1000),
        by_index(1000, truncate=True),
        yarn_temperature(FACTOR),
        "the ramp of YaRN's released code",
    ),
    "yarn untruncated": (
        YaRN(FACTOR, original_length=1000, truncate=False),
        by_index(1000, truncate=False),
        yarn_temperature(FACTOR),
        "the ramp of YaRN's released code, untruncated",
    ),
    "yarn deepseek": (
        YaRN(FACTOR, original_length=1000, mscale=0.707, mscale_all_dim=0.5),
        by_index(1000, truncate=True),
        (0.1 * 0.707 * math.log(FACTOR) + 1) / (0.1 * 0.5 * math.log(FACTOR) + 1),
        "DeepSeek-V2's mscale and mscale_all_dim",
    ),
    "llama3": (Llama3(FACTOR, original_length=1000), by_wavelength(1000), 1.0, "Llama 3.1's rule by wavelengths"),
}


def by_formula(frequency, width: int) -> np.ndarray:
    return np.array([frequency(i, width) for i in range(width // 2)])


@pytest.mark.parametrize(("rule", "frequency", "amplitude"), cases("scaling", CASES))
def test_frequencies(conforms, rule, frequency, amplitude):
    for width in (8, 64, 96):
        conforms(rule.frequencies(BASE, width), by_formula(frequency, width), tolerance=1e-6, each=True)
    conforms([rule.amplitude()], [amplitude], tolerance=1e-6)


@pytest.mark.parametrize(("rule", "frequency", "amplitude"), cases("scaling", CASES))
def test_outputs(conforms, rule, frequency, amplitude):
    wanted = by_definition(turned(by_formula(frequency, SIZE), amplitude=amplitude))
    conforms(by_module(Rotary(scaling=rule)), wanted, tolerance=1e-5)


# Rules by the current length: every query's own.

LAMBDA = {"short": [1.0, 1.1, 1.3, 1.4], "long": [1.0, 2.5, 3.0, 6.0]}


def dynamic_length(position: int, original: int, round_to: int) -> int:
    return original if position < original else math.ceil((position + 1) / round_to) * round_to


def dynamic(length: int, original: int, factor: float, width: int) -> np.ndarray:
    """Peng et al. 2023, section 3.3, with the factor of the implementations."""
    return by_formula(ntk(factor * length / original - (factor - 1)), width)


def longrope(length: int, original: int, width: int) -> np.ndarray:
    chosen = LAMBDA["long" if length > original else "short"]
    return np.array([theta(i, width) / chosen[i] for i in range(width // 2)])


@pytest.mark.conformance("scaling dynamic_ntk", reference="Peng et al. 2023, section 3.3")
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_dynamic_ntk(conforms, factor):
    lengths = np.array([10, 64, 65, 100, 4096, 50_000])
    rule = DynamicNTK(factor, original_length=64, round_to=1)
    wanted = np.array([dynamic(max(length, 64), 64, factor, 64) for length in lengths])
    conforms([rule.at_length(int(length)).frequencies(BASE, 64) for length in lengths], wanted, 1e-6, each=True)
    compiled_rule = compiled(lambda at: rule.frequencies_at(BASE, 64, at))
    conforms(compiled_rule(jnp.asarray(lengths)), wanted, 1e-6, each=True)


@pytest.mark.conformance("scaling dynamic_ntk", reference="Peng et al. 2023, section 3.3")
@pytest.mark.parametrize("round_to", [1, 4])
def test_outputs_of_dynamic_ntk(conforms, round_to):
    lengths = [dynamic_length(m, 10, round_to) for m in range(LENGTH)]
    frequencies = np.array([dynamic(length, 10, 2.0, SIZE) for length in lengths])
    rule = DynamicNTK(2.0, original_length=10, round_to=round_to)
    conforms(by_module(Rotary(scaling=rule)), by_definition(turned(frequencies)), tolerance=1e-5)


@pytest.mark.conformance("scaling longrope", reference="Ding et al. 2024, section 3, and Phi-3's temperature")
def test_longrope(conforms):
    rule = LongRoPE(FACTOR, 10, tuple(LAMBDA["short"]), tuple(LAMBDA["long"]))
    amplitude = math.sqrt(1 + math.log(FACTOR) / math.log(10))
    conforms([rule.amplitude()], [amplitude], tolerance=1e-6)
    for length in (3, 10, 11, 5000):
        found = rule.at_length(length).frequencies(BASE, SIZE)
        conforms(found, longrope(length, 10, SIZE), tolerance=1e-6, each=True)
    frequencies = np.array([longrope(m + 1, 10, SIZE) for m in range(LENGTH)])
    wanted = by_definition(turned(frequencies, amplitude=amplitude))
    conforms(by_module(Rotary(scaling=rule)), wanted, tolerance=1e-5)


@pytest.mark.conformance("scaling longrope", reference="Ding et al. 2024, section 3: the first n̂ tokens unscaled")
def test_longrope_of_unscaled_tokens(conforms):
    few = 6
    lengths = np.arange(LENGTH) + 1
    of_query = np.array([longrope(length, 10, SIZE) for length in lengths])
    plain_ones = np.array([theta(i, SIZE) for i in range(SIZE // 2)])
    at = np.arange(LENGTH)[:, None]
    angle_of_query = at * np.where(at < few, plain_ones, of_query)
    angle_of_key = at * np.where(at < few, plain_ones, of_query[:, None])

    def scores(q, k):
        q, k = (x[..., : SIZE // 2] + 1j * x[..., SIZE // 2 :] for x in (q, k))
        phase = np.exp(1j * (angle_of_query[:, None] - angle_of_key))
        return np.einsum("hmp,hnp,mnp->hmn", q, k.conj(), phase).real

    rule = LongRoPE(1.0, 10, tuple(LAMBDA["short"]), tuple(LAMBDA["long"]), unscaled_tokens=few)
    conforms(by_module(Rotary(scaling=rule)), by_definition(scores), tolerance=1e-5)

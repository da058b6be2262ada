import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InvalidInput
from models.positions import DynamicNTK, Linear, NTKAware, NTKByParts, Scaling, YaRN
from models.positions.scaling.rule import plain_frequencies


def scaling(name: str, factor: float) -> Scaling:
    fields = Scaling.registry[name].__dataclass_fields__
    options = {"factor": factor, "original_length": 64}
    return Scaling.registry[name](**{field: value for field, value in options.items() if field in fields})


def test_the_registry_holds_the_rules_by_their_names():
    assert set(Scaling.registry) == {"none", "linear", "ntk", "dynamic_ntk", "ntk_by_parts", "yarn"}
    with pytest.raises(
        InvalidInput, match=r"^position\.scaling\.name = 'pi' is not allowed; it must be one of .*ntk_by_parts"
    ):
        Scaling.registry["pi"]


@pytest.mark.parametrize("name", Scaling.registry)
@pytest.mark.parametrize("width", [2, 4, 32, 96])
def test_factor_one_is_plain_rope_to_the_last_bit(name, width):
    rule = scaling(name, 1.0)
    np.testing.assert_array_equal(rule.frequencies(10000.0, width), plain_frequencies(10000.0, width))
    assert rule.amplitude() == 1.0


@pytest.mark.parametrize("ramp", ["code", "paper"])
def test_yarn_of_factor_one_is_plain_under_both_ramps(ramp):
    rule = YaRN(factor=1.0, original_length=64, ramp=ramp)
    np.testing.assert_array_equal(rule.frequencies(500.0, 32), plain_frequencies(500.0, 32))


@settings(deadline=None)
@given(st.floats(1.0, 64.0), st.sampled_from([4, 16, 64]), st.sampled_from(sorted(Scaling.registry)))
def test_frequencies_lie_between_plain_and_interpolated(factor, width, name):
    plain = plain_frequencies(10000.0, width)
    got = scaling(name, factor).frequencies(10000.0, width)
    assert got.shape == (width // 2,) and got.dtype == np.float64
    assert (got <= plain * (1 + 1e-12)).all() and (got >= plain / factor * (1 - 1e-12)).all()


def test_ntk_is_a_change_of_base_that_divides_only_the_lowest_by_the_factor():
    got = NTKAware(factor=4.0).frequencies(10000.0, 16)
    np.testing.assert_allclose(got, plain_frequencies(10000.0 * 4.0 ** (16 / 14), 16), rtol=1e-12)
    plain = plain_frequencies(10000.0, 16)
    np.testing.assert_allclose([got[0], got[-1]], [plain[0], plain[-1] / 4], rtol=1e-12)


def test_linear_divides_all():
    np.testing.assert_allclose(Linear(factor=3.0).frequencies(10000.0, 8) * 3, plain_frequencies(10000.0, 8))


def test_by_parts_follows_the_definition_of_the_paper():
    length, factor, width = 512, 8.0, 64
    wanted = []
    for i in range(width // 2):
        frequency = 10000.0 ** (-2 * i / width)
        turns = length / (2 * math.pi / frequency)
        keep = 0.0 if turns < 1 else 1.0 if turns > 32 else (turns - 1) / 31
        wanted.append((1 - keep) * frequency / factor + keep * frequency)
    by_parts = NTKByParts(factor=factor, original_length=length).frequencies(10000.0, width)
    np.testing.assert_allclose(by_parts, wanted, rtol=1e-12)
    yarn = YaRN(factor=factor, original_length=length, ramp="paper")
    np.testing.assert_array_equal(yarn.frequencies(10000.0, width), by_parts)


def test_the_two_ramps_of_yarn_differ_in_between_and_agree_at_the_ends():
    code, paper = (YaRN(factor=8.0, original_length=512, ramp=ramp).frequencies(1e4, 64) for ramp in ("code", "paper"))
    np.testing.assert_allclose(code[[0, -1]], paper[[0, -1]])
    assert (np.maximum(code / paper, paper / code)).max() > 1.5


def test_the_code_ramp_survives_lengths_outside_its_range():
    plain = plain_frequencies(10000.0, 8)
    short = YaRN(factor=2.0, original_length=2).frequencies(10000.0, 8)
    np.testing.assert_allclose(short[1:], plain[1:] / 2)  # hardly anything turns within two tokens
    np.testing.assert_allclose(YaRN(factor=2.0, original_length=10**9).frequencies(10000.0, 8), plain)


def test_attention_factor_of_yarn():
    assert YaRN(factor=8.0).amplitude() == pytest.approx(0.1 * math.log(8) + 1)
    weighted = YaRN(factor=8.0, mscale=0.7, mscale_all_dim=1.4).amplitude()
    assert weighted == pytest.approx((0.07 * math.log(8) + 1) / (0.14 * math.log(8) + 1))
    assert YaRN(factor=8.0, attention_factor=1.5).amplitude() == 1.5


def test_dynamic_ntk_is_ntk_at_the_factor_of_the_length():
    rule = DynamicNTK(original_length=64)
    lengths = np.array([1, 64, 65, 128, 1000])
    got = rule.frequencies_at(10000.0, 16, jnp.asarray(lengths))
    assert got.shape == (5, 8) and got.dtype == jnp.float32
    for row, length in zip(got, lengths, strict=True):
        wanted = NTKAware(factor=max(length / 64, 1.0)).frequencies(10000.0, 16)
        np.testing.assert_allclose(row, wanted, rtol=1e-6)
    assert DynamicNTK(factor=3.0, original_length=64).stretch(128) == pytest.approx(3.0 * 128 / 64 - 2.0)
    assert DynamicNTK(factor=3.0, original_length=64).stretch(10) == 1.0


@pytest.mark.parametrize("name", ["linear", "ntk", "dynamic_ntk", "ntk_by_parts", "yarn"])
@pytest.mark.parametrize("factor", [0.5, 0.0, -2.0, math.inf, math.nan])
def test_factors_below_one_are_refused(name, factor):
    with pytest.raises(InvalidInput, match=r"^factor = .* is not allowed; it must be a finite number of at least 1$"):
        scaling(name, factor)


@pytest.mark.parametrize("rule", [NTKByParts(factor=2.0), YaRN(factor=2.0)], ids=["ntk_by_parts", "yarn"])
def test_an_original_length_that_nobody_filled_in_is_refused(rule):
    with pytest.raises(InvalidInput, match=r"^position\.scaling\.original_length = None"):
        rule.frequencies(10000.0, 16)
    with pytest.raises(InvalidInput, match=r"^position\.scaling\.original_length = None"):
        DynamicNTK().frequencies_at(10000.0, 16, jnp.array([3]))


@pytest.mark.parametrize(
    "cls, options, message",
    [
        (YaRN, {"ramp": "linear"}, "ramp = 'linear' .* code, paper"),
        (YaRN, {"mscale": 0.7}, "mscale_all_dim = None"),
        (YaRN, {"mscale_all_dim": 0.7}, "mscale = None"),
        (YaRN, {"attention_factor": -1.0}, "attention_factor = -1.0"),
        (YaRN, {"beta_fast": 1.0}, r"beta_fast = 1.0 .* above beta_slow \(1.0\)"),
        (NTKByParts, {"beta": 0.5}, "beta = 0.5"),
        (NTKByParts, {"original_length": 0}, "original_length = 0"),
        (DynamicNTK, {"original_length": -4}, "original_length = -4"),
    ],
)
def test_impossible_options_are_refused(cls, options, message):
    with pytest.raises(InvalidInput, match=message):
        cls(**options)

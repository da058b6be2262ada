import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InvalidInput
from models.positions.scaling import (
    DynamicNTK,
    FixedNTK,
    Linear,
    Llama3,
    LongRoPE,
    MixedNTK,
    NTKAware,
    NTKByParts,
    Scaling,
    YaRN,
)
from models.positions.scaling.rule import plain_frequencies, turns


def scaling(name: str, factor: float) -> Scaling:
    fields = Scaling.registry[name].__dataclass_fields__
    options = {"factor": factor, "original_length": 64}
    return Scaling.registry[name](**{field: value for field, value in options.items() if field in fields})


def test_the_registry_holds_the_rules_by_their_names():
    assert set(Scaling.registry) == {
        "none",
        "linear",
        "ntk",
        "fixed_ntk",
        "mixed_ntk",
        "dynamic_ntk",
        "ntk_by_parts",
        "yarn",
        "llama3",
        "longrope",
    }
    with pytest.raises(
        InvalidInput, match=r"^position\.scaling\.name = 'pi' is not allowed; it must be one of .*ntk_by_parts"
    ):
        Scaling.registry["pi"]


@pytest.mark.parametrize("name", Scaling.registry)
@pytest.mark.parametrize("width", [2, 4, 32, 96])
def test_factor_one_is_plain_rope_to_the_last_bit(name, width):
    rule = scaling(name, 1.0)
    np.testing.assert_array_equal(rule.frequencies(10000.0, width), plain_frequencies(10000.0, width))
    np.testing.assert_array_equal(rule.at_length(64).frequencies(10000.0, width), plain_frequencies(10000.0, width))
    if rule.depends_on_length:
        at_64 = rule.frequencies_at(10000.0, width, jnp.array([64]))
        np.testing.assert_array_equal(at_64[0], plain_frequencies(10000.0, width).astype(np.float32))
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


@pytest.mark.parametrize("factor, width", [(2.0, 8), (12.0, 64), (7.5, 2)])
def test_fixed_ntk_changes_the_base_and_then_divides_all(factor, width):
    wanted = [(10000.0 * factor) ** (-2 * i / width) / factor ** (2 / width) for i in range(width // 2)]
    np.testing.assert_allclose(FixedNTK(factor=factor).frequencies(10000.0, width), wanted, rtol=1e-12)


@pytest.mark.parametrize("factor, width, exponent", [(2.0, 8, 0.625), (12.0, 64, 0.75), (7.5, 2, 0.1)])
def test_mixed_ntk_is_the_formula_of_the_article(factor, width, exponent):
    a = math.log(factor) / (width / 2) ** exponent
    wanted = [10000.0 ** (-2 * i / width) * math.exp(-a * (i + 1) ** exponent) for i in range(width // 2)]
    got = MixedNTK(factor=factor, exponent=exponent).frequencies(10000.0, width)
    np.testing.assert_allclose(got, wanted, rtol=1e-12)
    assert MixedNTK().exponent == 0.625


def test_the_ends_of_mixed_ntk_are_fixed_ntk_and_linear():
    for exponent, same in ((1.0, FixedNTK(factor=6.0)), (0.0, Linear(factor=6.0))):
        mixed = MixedNTK(factor=6.0, exponent=exponent).frequencies(10000.0, 32)
        np.testing.assert_allclose(mixed, same.frequencies(10000.0, 32), rtol=1e-12)


def test_llama3_is_the_formula_of_its_code_and_by_parts_with_other_ends():
    length, factor, low, high, base, width = 8192, 8.0, 1.0, 4.0, 500000.0, 128
    wanted = []
    for i in range(width // 2):
        frequency = base ** (-2 * i / width)
        wavelength = 2 * math.pi / frequency
        if wavelength < length / high:
            wanted.append(frequency)
        elif wavelength > length / low:
            wanted.append(frequency / factor)
        else:
            smooth = (length / wavelength - low) / (high - low)
            wanted.append((1 - smooth) * frequency / factor + smooth * frequency)
    rule = Llama3(factor=factor, original_length=length)
    np.testing.assert_allclose(rule.frequencies(base, width), wanted, rtol=1e-12)
    assert rule.amplitude() == 1.0
    by_parts = NTKByParts(factor=factor, original_length=length, alpha=1.0, beta=4.0)
    np.testing.assert_array_equal(rule.frequencies(base, width), by_parts.frequencies(base, width))


def test_turns_over_a_length():
    np.testing.assert_allclose(turns(np.array([2 * math.pi, math.pi / 50, 0.0]), 100), [100.0, 1.0, 0.0])


LISTS = LongRoPE(factor=4.0, original_length=64, short_factor=(1.0, 1.1, 1.5, 2.0), long_factor=(1.5, 2.0, 8.0, 16.0))


def test_longrope_divides_by_the_list_of_the_length():
    plain = plain_frequencies(10000.0, 8)
    lengths = np.array([1, 64, 65, 1000])
    wanted = [plain / (LISTS.long_factor if length > 64 else LISTS.short_factor) for length in lengths]
    got = LISTS.frequencies_at(10000.0, 8, jnp.asarray(lengths))
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, np.asarray(wanted, np.float32))
    for frequencies, length in zip(wanted, lengths, strict=True):
        np.testing.assert_allclose(LISTS.at_length(int(length)).frequencies(10000.0, 8), frequencies, rtol=1e-12)
    np.testing.assert_allclose(LISTS.frequencies(10000.0, 8), wanted[0], rtol=1e-12)


def test_longrope_knows_two_lengths_and_changes_after_the_original_one():
    current = LISTS.current_length(jnp.array([0, 63, 64, 5000]))
    assert current.tolist() == [64, 64, 65, 65]


def test_one_number_of_longrope_stands_for_all():
    rule = LongRoPE(original_length=64, long_factor=(4.0,))
    at_65 = rule.at_length(65).frequencies(10000.0, 8)
    np.testing.assert_array_equal(at_65, Linear(factor=4.0).frequencies(10000.0, 8))


def test_attention_factor_of_longrope():
    assert LISTS.amplitude() == pytest.approx(math.sqrt(1 + math.log(4) / math.log(64)))
    assert LongRoPE(factor=4.0, original_length=64, attention_factor=1.25).amplitude() == 1.25
    assert LongRoPE().amplitude() == 1.0


def test_longrope_refuses_lists_of_another_width():
    for call in (lambda: LISTS.check(6), lambda: LISTS.frequencies(10000.0, 6)):
        with pytest.raises(InvalidInput, match=r"^short_factor = .* a list of 3 numbers, one for each rotary pair"):
            call()
    LISTS.check(8)


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


def test_truncate_widens_the_ramp_to_whole_indices():
    cut, uncut = (YaRN(factor=8.0, original_length=512, truncate=t).frequencies(1e4, 64) for t in (True, False))
    wanted = []
    low, high = (64 * math.log(512 / (turns * 2 * math.pi)) / (2 * math.log(1e4)) for turns in (32, 1))
    for i in range(32):
        keep, frequency = 1 - min(max((i - low) / (high - low), 0), 1), 1e4 ** (-2 * i / 64)
        wanted.append((1 - keep) * frequency / 8 + keep * frequency)
    np.testing.assert_allclose(uncut, wanted, rtol=1e-12)
    assert np.abs(cut / uncut - 1).max() > 0.01


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


@pytest.mark.parametrize("name", sorted(set(Scaling.registry) - {"none"}))
@pytest.mark.parametrize("factor", [0.5, 0.0, -2.0, math.inf, math.nan])
def test_factors_below_one_are_refused(name, factor):
    with pytest.raises(InvalidInput, match=r"^factor = .* is not allowed; it must be a finite number of at least 1$"):
        scaling(name, factor)


@pytest.mark.parametrize("rule", [NTKByParts(factor=2.0), YaRN(factor=2.0), Llama3(factor=2.0)], ids=lambda r: r.name)
def test_an_original_length_that_nobody_filled_in_is_refused(rule):
    with pytest.raises(InvalidInput, match=r"^position\.scaling\.original_length = None"):
        rule.frequencies(10000.0, 16)
    with pytest.raises(InvalidInput, match=r"^position\.scaling\.original_length = None"):
        DynamicNTK().frequencies_at(10000.0, 16, jnp.array([3]))
    with pytest.raises(InvalidInput, match=r"^position\.scaling\.original_length = None"):
        LongRoPE().frequencies_at(10000.0, 16, jnp.array([3]))


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
        (MixedNTK, {"exponent": -0.5}, "exponent = -0.5"),
        (MixedNTK, {"exponent": 1.5}, "exponent = 1.5"),
        (Llama3, {"low_freq_factor": 0.0}, "low_freq_factor = 0.0"),
        (Llama3, {"high_freq_factor": 1.0}, r"high_freq_factor = 1.0 .* above low_freq_factor \(1.0\)"),
        (LongRoPE, {"short_factor": ()}, r"short_factor = \(\)"),
        (LongRoPE, {"long_factor": (1.0, 0.0)}, "long_factor = "),
        (LongRoPE, {"original_length": 1}, "original_length = 1 .* at least 2"),
        (LongRoPE, {"attention_factor": 0.0}, "attention_factor = 0.0"),
        (LongRoPE, {"unscaled_tokens": -1}, "unscaled_tokens = -1"),
    ],
)
def test_impossible_options_are_refused(cls, options, message):
    with pytest.raises(InvalidInput, match=message):
        cls(**options)

"""Limits that neither hide nor flatten, labels that keep their distance, colours that stay apart, one way to write."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.report import text
from experiments.report.axes import robust_limits, spread
from experiments.report.series import average
from experiments.report.style import HUES, ROLES, inline
from experiments.report.training import smooth


def test_benign_values_are_all_shown():
    limits = robust_limits([2.2, 2.3, 2.5, 2.8, 3.3], [2.2, 2.3])
    assert limits.inside(3.3) and not limits.clips and limits.bottom < 2.2


def test_exploding_values_do_not_flatten_the_others():
    limits = robust_limits([2.2, 2.25, 2.3, 2.4, 2.5, 9.0, 40.0, math.inf], [2.2, 2.4])
    assert limits.clips and not limits.inside(9.0)
    assert 2.5 < limits.top < 4.0


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=20))
def test_limits_always_hold_the_median_and_below(values):
    limits = robust_limits(values, values[:1])
    assert limits.bottom < limits.top
    assert all(limits.bottom <= value <= limits.top for value in sorted(values)[: len(values) // 2 + 1])


@given(st.lists(st.floats(0, 200), min_size=1, max_size=12).map(sorted))
def test_spread_keeps_order_distance_and_bounds(wanted):
    found = spread(wanted, 12.5, 0.0, 200.0)
    assert all(after - before >= 12.5 - 1e-9 for before, after in itertools.pairwise(found))
    assert found[0] >= -1e-9 and found[-1] <= 200 + 1e-9


def test_spread_leaves_alone_what_is_far_enough_apart():
    assert spread([10, 40, 80], 12.5, 0, 100) == pytest.approx([10, 40, 80])
    assert spread([50, 50], 10, 0, 100) == pytest.approx([45, 55])


def test_average_is_a_mean_with_the_range_of_its_seeds():
    marks = average([(128, 2.0, 1.9, 2.1), (128, 3.0, 2.9, 3.1), (256, 4.0, 3.9, None), (512, math.nan, None, None)])
    assert [(mark.x, mark.y, mark.low, mark.high, mark.runs) for mark in marks] == [
        (128, 2.5, 2.0, 3.0, 2),
        (256, 4.0, 3.9, None, 1),
    ]
    assert average([(1, math.inf, None, None), (1, 2.0, None, None)])[0].y == math.inf


def test_smoothing_keeps_a_straight_line_and_lessens_noise():
    line = np.linspace(5, 2, 200)
    assert smooth(line) == pytest.approx(line)
    noise = np.random.default_rng(0).normal(size=400)
    assert smooth(noise)[20:-20].std() < 0.5 * noise.std()


SIGHTS = {  # Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB
    "normal": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(("theme", "distance"), [(0, 18), (1, 15)])
def test_hues_stay_apart_for_every_sight_and_stand_out_from_their_paper(theme, distance):
    paper = float(TO_XYZ[1] @ linear(ROLES["paper"][theme]))
    for hue in HUES:
        luminance = float(TO_XYZ[1] @ linear(hue[theme]))
        assert (max(luminance, paper) + 0.05) / (min(luminance, paper) + 0.05) >= 3
    for sight in SIGHTS.values():
        seen = [lab(np.array(sight) @ linear(hue[theme])) for hue in HUES]
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) >= distance


def test_inline_drawings_rename_ids_in_tags_but_not_in_words():
    svg = (
        '<?xml version="1.0"?><svg viewBox="0 0 1 1" width="1pt"><title>a "b"</title><g id="p" clip-path="url(#c)">'
        '<use xlink:href="#p" style="fill: #ffffff"/><text> id="p" url(#c) #ffffff</text></g></svg>'
    )
    found = inline(svg, "f")
    assert 'id="f-p"' in found and 'href="#f-p"' in found and "url(#f-c)" in found and "fill: var(--paper)" in found
    assert '<text> id="p" url(#c) #ffffff</text>' in found and 'aria-label="a &quot;b&quot;"' in found


def test_numbers_are_written_one_way():
    assert [text.bits(value) for value in (2.6134, None, math.nan, math.inf)] == ["2.613", "–", "NaN", "∞"]
    assert [text.change(value) for value in (0.0124, -0.0124, 0.0001)] == ["+0.012", "−0.012", "0.000"]
    assert [text.perplexity(value) for value in (3.14159, 76.7268, 8663.9, 2.5e7)] == [
        "3.142",
        "76.73",
        "8,664",
        "2.50e+07",
    ]
    assert [text.duration(value) for value in (3.21, 59.9, 301.5, 11220)] == [
        "3.2 s",
        "1 min 00 s",
        "5 min 02 s",
        "3 h 07 min",
    ]
    assert [text.factor(value) for value in (16.0, 1.5)] == ["16×", "1.5×"]
    assert text.listing(["a", "b", "c"]) == "a, b and c"
    assert text.clean("a\x00b\n\ud800c") == "a b ?c"
    assert text.shorten("abcdefghij", 5) == "ab…ij"

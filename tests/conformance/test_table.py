"""A row of the conformance table for every registered name, and no row without a reference."""

import pathlib

import numpy as np
import pytest

from experiments.presets import PRESETS
from models.attention.visibility import Visibility
from models.mixers import Mixer
from models.positions import PositionScheme, Scaling
from models.positions.hugging_face import ROPE_TYPES
from models.positions.index import Index
from models.positions.temperature import Temperature
from tests.conformance.rows import SHOWN, largest_error, rows_of, table

FAMILIES = {
    "position": PositionScheme.registry,
    "scaling": Scaling.registry,
    "index": Index.registry,
    "temperature": Temperature.registry,
    "span": Visibility.registry,
    "mixer": Mixer.registry,
    "rope_type": ROPE_TYPES,
    "preset": PRESETS,
}
SUBJECTS = {f"{family} {name}" for family, names in FAMILIES.items() for name in names}
# References that may not be installed: a name needs a row that always runs.
LIVE = ("transformers ", "x-transformers ")
# And one that is held against more than itself.
SELF = "itself"


def is_whole(collected: list[pytest.Item], arguments: list[str]) -> bool:
    """Whether all tests of this folder were collected."""
    files = set(pathlib.Path(__file__).parent.glob("test_*.py"))
    return files <= {item.path for item in collected} and not any("::" in argument for argument in arguments)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_registered_name_has_a_row_that_always_runs(family, collected, pytestconfig):
    if not is_whole(collected, pytestconfig.args):
        pytest.skip("rows are counted over the whole folder, of which only a part was selected")
    rows = [row for item in collected for row in rows_of(item)]
    covered = {subject for subject, reference in rows if not reference.startswith((*LIVE, SELF))}
    assert [name for name in FAMILIES[family] if f"{family} {name}" not in covered] == []


def test_every_row_is_of_a_registered_name_and_has_a_reference(collected):
    rows = [row for item in collected for row in rows_of(item)]
    assert {subject for subject, _ in rows} <= SUBJECTS
    assert all(len(reference) > 8 for _, reference in rows)


@pytest.mark.parametrize(
    ("got", "wanted", "of_the_largest", "of_each"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0, 0),
        ([1.1, 10.0], [1.0, 10.0], 0.01, 0.1),
        ([0.1, 1.0], [0.0, 1.0], 0.1, np.inf),
        ([True, False], [True, True], 1, 1),
        ([np.nan, 2.0], [np.nan, 1.0], np.inf, 1),
        ([np.nan, 1.0], [0.0, 1.0], np.inf, np.inf),
        ([0.0, 1.0], [np.nan, 1.0], np.inf, np.inf),
    ],
)
def test_errors_are_relative(got, wanted, of_the_largest, of_each):
    assert largest_error(got, wanted, each=False) == pytest.approx(of_the_largest)
    assert largest_error(got, wanted, each=True) == pytest.approx(of_each)


def test_the_table_has_the_largest_error_of_each_pair_under_each_tolerance():
    lines = table(
        [
            ("span full", "a paper", 0.0, 0.0),
            ("position rope", "a paper", 2e-7, 1e-6),
            ("position rope", "a paper", 3e-8, 1e-6),
            ("position rope", "a paper", 3e-6, 1e-5),
            ("position rope", "a library", None, None),
            ("position rope", "itself", 0.2, SHOWN),
        ]
    )
    assert [line.split() for line in lines[1:]] == [
        ["position", "rope", "a", "library", "not", "run"],
        ["position", "rope", "a", "paper", "2e-07", "1e-06", "2"],
        ["position", "rope", "a", "paper", "3e-06", "1e-05", "1"],
        ["position", "rope", "itself", "2e-01", "shown", "1"],
        ["span", "full", "a", "paper", "equal", "equal", "1"],
    ]

"""The conformance table: which registered name was held against which reference, and the largest error that was found.

A test says what it compares by a mark, and compares by the fixture `conforms`, which records the errors:

    @pytest.mark.conformance("position alibi", reference="Press et al. 2022, section 3")
    def test_slopes(conforms):
        conforms(got, wanted, tolerance=1e-6, each=True)

An error that is known and not allowed or forbidden, such as that of bfloat16, goes by the fixture `shows` instead.

Subjects are a family and a registered name, such as "scaling yarn" or "span sliding"; test_table.py has the families
and demands a row for every name. A test with the mark fails where it compares nothing. `./launch.sh conformance`
prints the table; a reference that is not installed stands there as not run.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.rows import MARK, SHOWN, Row, largest_error, rows_of, table

PROPERTY = "conformance"  # of a report: the rows that its test declares and records
LARGEST_TOLERANCE = 1e-5  # of attention outputs in float32; of frequencies and biases it is 1e-6
COLLECTED = pytest.StashKey[list[pytest.Item]]()


def rows_recorded(test: pytest.Item | pytest.TestReport) -> list[Row]:
    """The rows of a test, among them one without an error for each that its marks declare."""
    rows: list[Any] = [value for name, value in test.user_properties if name == PROPERTY]
    return [tuple(row) for row in rows]


@pytest.fixture
def conforms(request: pytest.FixtureRequest) -> Callable:
    """`conforms(got, wanted, tolerance, each=False)`: asserts and records the largest error of a test with the mark.

    tolerance: of the largest relative error (see `largest_error`); 0 for what must be equal.
    """
    rows = rows_of(request.node)
    assert rows, f"a test that uses `conforms` says what it compares by the mark {MARK!r}"

    def compare(got, wanted, tolerance: float, each: bool = False) -> None:
        assert 0 <= tolerance <= LARGEST_TOLERANCE
        error = largest_error(got, wanted, each)
        request.node.user_properties += [(PROPERTY, (*row, error, float(tolerance))) for row in rows]
        assert error <= tolerance, f"the largest relative error is {error:.3g}, above {tolerance:g}"

    return compare


@pytest.fixture
def shows(request: pytest.FixtureRequest) -> Callable:
    """`shows(got, wanted)`: records the largest error of a test with the mark, and holds it against no number."""
    rows = rows_of(request.node)
    assert rows, f"a test that uses `shows` says what it compares by the mark {MARK!r}"

    def record(got, wanted) -> None:
        error = largest_error(got, wanted, each=False)
        request.node.user_properties += [(PROPERTY, (*row, error, SHOWN)) for row in rows]
        assert math.isfinite(error)

    return record


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARK}(*subjects, reference): what a test compares with what, for the table")


@pytest.hookimpl(tryfirst=True)  # before any test is deselected
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    session.stash[COLLECTED] = list(items)


@pytest.fixture
def collected(request: pytest.FixtureRequest) -> list[pytest.Item]:
    """All tests that were collected, selected or not."""
    return request.session.stash[COLLECTED]


def pytest_runtest_setup(item: pytest.Item) -> None:
    item.user_properties += [(PROPERTY, (*row, None, None)) for row in rows_of(item)]


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function):
    """What a test returns; a failure of one that has the mark and compared nothing."""
    result = yield
    if rows_of(pyfuncitem) and all(error is None for _, _, error, _ in rows_recorded(pyfuncitem)):
        pytest.fail(f"has the mark {MARK!r} and did not compare by `conforms` or `shows`", pytrace=False)
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for group in terminalreporter.stats.values() for report in group]
    ran = [report for report in reports if isinstance(report, pytest.TestReport) and report.when != "teardown"]
    rows = [row for report in ran for row in rows_recorded(report)]
    if rows:
        terminalreporter.section("conformance")
        for line in table(rows):
            terminalreporter.write_line(line)

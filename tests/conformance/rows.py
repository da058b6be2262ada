"""Rows of the conformance table: how tests declare them, how an error is measured, and the table as text."""

import math
from collections.abc import Iterable

import numpy as np
import pytest

MARK = "conformance"

SHOWN = math.inf  # the tolerance of what is shown alone

# Subject, reference, largest relative error and its tolerance; neither where nothing was compared.
Row = tuple[str, str, float | None, float | None]


def cases(family: str, found: dict[str, tuple]) -> list:
    """Parameters of a test, one case for each name, with the row that it gives the table.

    found: by name, the parameters and at last the reference. What follows a space in a name says which of several.
    """
    return [
        pytest.param(
            *case[:-1], id=name, marks=pytest.mark.conformance(f"{family} {name.split()[0]}", reference=case[-1])
        )
        for name, case in found.items()
    ]


def names(family: str, found: Iterable[str], reference: str) -> list:
    """Names as the parameters of a test, each with the row that it gives the table."""
    return cases(family, {name: (name, reference) for name in found})


def rows_of(item: pytest.Item) -> list[tuple[str, str]]:
    """Subject and reference of each row that the marks of a test declare."""
    marks = item.iter_markers(MARK)
    return [(subject, mark.kwargs["reference"]) for mark in marks for subject in mark.args]


def largest_error(got, wanted, each: bool) -> float:
    """The largest difference, as a share of the largest wanted entry, or of `each` its own (0 only meets 0).

    0 of what is equal; infinite of what is not a number in one of them alone.
    """
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    assert got.shape == wanted.shape and got.size > 0
    if np.array_equal(got, wanted, equal_nan=True):
        return 0.0
    size = np.abs(wanted) if each else np.full(wanted.shape, np.abs(wanted).max())
    differs = (got != wanted) & ~(np.isnan(got) & np.isnan(wanted))
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(differs, np.abs(got - wanted) / size, 0.0).max()
    return math.inf if np.isnan(error) else float(error)


def table(rows: list[Row]) -> list[str]:
    """Lines of text: of each subject and reference the largest error under each tolerance, and of how many."""
    found: dict[tuple[str, str], dict[float, list[float]]] = {}
    for subject, reference, error, tolerance in rows:
        by_tolerance = found.setdefault((subject, reference), {})
        if error is not None and tolerance is not None:
            by_tolerance.setdefault(tolerance, []).append(error)
    lines: list[tuple[str, ...]] = [("scheme", "reference", "largest error", "allowed", "comparisons")]
    for row, by_tolerance in sorted(found.items()):
        if not by_tolerance:
            lines.append((*row, "not run", "", ""))
        for allowed, errors in sorted(by_tolerance.items()):
            lines.append((*row, *map(_number, (max(errors), allowed)), str(len(errors))))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _number(number: float) -> str:
    return {0: "equal", SHOWN: "shown"}.get(number, f"{number:.0e}")

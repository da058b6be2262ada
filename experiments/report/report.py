"""From a study folder to its report: the page, and every figure as SVG with its data as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.report.answer import answer
from experiments.report.attribution import attribution_figure
from experiments.report.comparison import comparison_notes
from experiments.report.context import context_figure, position_figure
from experiments.report.entropy import entropy_figure
from experiments.report.equal_context import byte_notes, equal_context_figure
from experiments.report.extrapolation import change_figure, length_figure
from experiments.report.layers import layers_figure, layers_table
from experiments.report.page import render
from experiments.report.schemes import scheme_figures
from experiments.report.series import collect_series, point_notes, row_notes
from experiments.report.study import read_study
from experiments.report.tables import provenance_tables, results_csv, results_table, tokenizer_table
from experiments.report.training import training_figure
from train.files import write_whole

FIGURES = (
    length_figure,
    change_figure,
    equal_context_figure,
    position_figure,
    context_figure,
    attribution_figure,
    entropy_figure,
    training_figure,
    layers_figure,
)


def write_report(study: Path) -> Path:
    """Writes `study`/report/: index.html (self-contained), one SVG and one CSV per figure, and results.csv.

    Each file appears whole or not at all; the same study gives the same bytes. Returns the path of the page. Raises
    InvalidInput where the folder holds no readable study.json.
    """
    content = read_study(Path(study))
    series = collect_series(content)
    drawn = [draw(content, series) for draw in FIGURES]
    figures = [figure for figure in drawn if figure.rows or not figure.optional]
    of_schemes, scheme_notes = scheme_figures(content)
    schemes = [figure for figure in of_schemes if figure.rows]
    page = render(
        content,
        answer(content, series),
        [*point_notes(content), *row_notes(series), *byte_notes(series), *comparison_notes(series)],
        figures,
        results_table(series),
        tokenizer_table(content),
        provenance_tables(content),
        schemes,
        scheme_notes,
        layers_table(series),
    )
    folder = Path(study) / "report"
    folder.mkdir(exist_ok=True)
    for figure in (*drawn, *of_schemes):
        if figure.rows or not figure.optional:
            write_whole(folder / f"{figure.name}.csv", to_csv(figure.header, figure.rows))
        else:
            (folder / f"{figure.name}.csv").unlink(missing_ok=True)
        if figure.svg is None:
            (folder / f"{figure.name}.svg").unlink(missing_ok=True)
        else:
            write_whole(folder / f"{figure.name}.svg", figure.svg)
    write_whole(folder / "results.csv", to_csv(*results_csv(series)))
    write_whole(folder / "index.html", page)
    return folder / "index.html"


def to_csv(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """Rows as CSV, numbers as Python writes them (they read back as the same numbers), None as an empty field."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()

"""The figure of norms per layer and the table of who diverged, from invented metrics."""

import csv
import json

import pytest

from experiments.report import write_report
from experiments.report.layers import COLUMNS, DRAWN_LINES, some_layers
from tests.experiments.report.synthetic import evaluation, quickstart, write_run, write_study

LAYERS = 8


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two placements, watched at a hundred steps; one of them fails at its 90th, and was not finite thrice."""
    folder, points = tmp_path_factory.mktemp("studies") / "norms", []
    for index, label in enumerate(("pre", "post")):
        run_id, fails = f"{index}bab34cd56ef", label == "post"
        write_run(folder, run_id, [] if fails else [evaluation(label, run_id, 2.2, 0.1, lengths=(128, 256))])
        lines = []
        for step in range(1, 101):
            lost = fails and step >= 90
            sizes = {"layer_rms": [1.0 + layer + index for layer in range(LAYERS)]}
            sizes["layer_gradient_norm"] = [None if lost else 2.0**-layer / step for layer in range(LAYERS)]
            skipped = step - 89 if lost and step < 93 else 0
            lines.append({"step": step, "gradient_norm": 3.0, "skipped": skipped, "tokens": 1024 * step, **sizes})
        run = folder / "runs" / run_id
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if fails:
            (run / "finished.json").unlink(missing_ok=True)
            (run / "error.txt").write_text("loss is not finite at step 93\n")
        points.append({"label": label, "run_id": run_id})
    return write_report(write_study(folder, points)).parent


def test_the_figure_has_some_layers_of_every_run(study):
    with (study / "layer_norms.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * DRAWN_LINES * LAYERS and {row["series"] for row in rows} == {"pre", "post"}
    first = [row for row in rows if row["series"] == "pre" and row["step"] == "1"]
    assert [float(row["gradient_norm"]) for row in first] == [2.0**-layer for layer in range(LAYERS)]
    assert {row["step"] for row in rows} >= {"1", "100"}
    lost = [row for row in rows if row["series"] == "post" and row["step"] == "100"]
    assert all(row["gradient_norm"] == "" and float(row["rms"]) > 0 for row in lost)
    page = (study / "index.html").read_text()
    assert "Norms per layer" in page and "layers drawn: 1, 3, 5, 6 and 8 of 8" in page


def test_the_table_says_who_diverged(study):
    page = (study / "index.html").read_text()
    table = page[page.index("Who diverged") :]
    table = table[: table.index("</table>")]
    ok, failed = table[table.index("<tbody>") :].split("<tr")[1:]
    assert ">ok<" in ok and "class" not in ok.split(">")[0]
    assert ">3<" in failed and "failed: loss is not finite at step 93" in failed
    assert table.count("<th ") == len(COLUMNS)


def test_studies_that_watch_no_layers_have_neither(tmp_path):
    folder = write_report(quickstart(tmp_path / "study", schemes={"rope": (2.2, 0.1)})).parent
    assert not (folder / "layer_norms.csv").exists() and "Who diverged" not in (folder / "index.html").read_text()


@pytest.mark.parametrize(("layers", "drawn"), [(1, [0]), (2, [0, 1]), (5, [0, 1, 2, 3, 4]), (64, [0, 16, 32, 47, 63])])
def test_layers_are_drawn_evenly_from_first_to_last(layers, drawn):
    assert some_layers(layers) == drawn

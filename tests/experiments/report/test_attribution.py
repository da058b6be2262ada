"""The figures of an attribution: numbers kept exactly, reasons told, nothing there without the data."""

import json
from xml.etree import ElementTree

import pytest

from experiments.report.text import change
from tests.experiments.report.synthetic import evaluation, write_run, write_study
from tests.experiments.report.test_report import page_of, rows_of

ABLATIONS = {"as_it_is": 0.0, "clipped": -0.31, "log_n": 0.02, "window": -0.3, "sinks": -0.33, "training_length": -0.38}
FIGURES = ("what_breaks", "attention_entropy")


def attribution(shift: float = 0.0) -> dict:
    rows = []
    for name, difference in ABLATIONS.items():
        for protocol in ("non_overlapping", "sliding"):
            moved = difference + shift if difference else 0.0
            row = {"ablation": name, "protocol": protocol, "length": 128 if name == "training_length" else 1024}
            row |= {"stride": 256, "status": "ok", "reason": None, "bits_per_byte": 2.7 + moved, "difference": moved}
            rows.append(row | {"difference_low": moved - 0.04, "difference_high": moved + 0.05})
    for protocol in ("non_overlapping", "sliding"):
        row = {"ablation": "clipped_log_n", "protocol": protocol, "length": 1024, "status": "does not apply"}
        rows.append(row | {"reason": "no distances", "difference": None})
    verdict = ["0.380 bits are lost.", "Clipping <b>repairs</b>."]
    return {"trained": 128, "lengths": [{"length": 1024, "rows": rows, "effects": [], "verdict": verdict}]}


def entropy(*lengths: int) -> dict:
    def layer(index, length):
        edges = [(0, 16), (16, 128), (128, length)] if length > 128 else [(0, 16), (16, 128)]
        return [{"from": low, "to": high, "nats": 0.5 + index + low / 400} for low, high in edges]

    curves = [
        {"length": length, "windows": 4, "reason": None, "layers": [layer(i, length) for i in range(3)]}
        for length in lengths
    ]
    none = {"length": 9999, "windows": 0, "reason": "no document holds 9999 tokens", "layers": []}
    return {"curves": [*curves, none]}


def study_of(folder, *contents):
    for content in contents:
        write_run(folder, content["run_id"], [content], seed=content["seed"])
    return write_study(folder, [{"label": c["series"], "run_id": c["run_id"]} for c in contents])


def words_of(path) -> list[str]:
    return ["".join(e.itertext()) for e in ElementTree.fromstring(path.read_bytes()).iter() if e.tag.endswith("}text")]


def test_numbers_are_those_of_the_evaluation_and_the_verdict_is_told(tmp_path):
    content = evaluation("rope", "a1", 2.2, 0.1) | {"attribution": attribution(), "entropy": entropy(128, 1024)}
    page = page_of(study_of(tmp_path, content, evaluation("alibi", "b2", 2.2, 0.0)))
    assert "rope at 1,024 tokens: 0.380 bits are lost. Clipping <b>repairs</b>." in page.text
    assert "What breaks beyond the training length" in page.text and "Entropy of attention by position" in page.text
    rows = rows_of(tmp_path / "report" / "what_breaks.csv")
    assert len(rows) == 14 and {row["series"] for row in rows} == {"rope"}
    for row in rows:
        if row["ablation"] == "clipped_log_n":
            assert (row["status"], row["difference"], row["reason"]) == ("does not apply", "", "no distances")
        else:
            assert float(row["difference"]) == ABLATIONS[row["ablation"]] and row["at_length"] == "1024"
    words = words_of(tmp_path / "report" / "what_breaks.svg")
    assert words.count("does not apply") == 2 and words.count("rope at 1,024 tokens") == 2
    for name in ("clipped", "log_n", "window", "sinks"):
        assert words.count(change(ABLATIONS[name])) == 2
    curves = rows_of(tmp_path / "report" / "attention_entropy.csv")
    assert len(curves) == 15 and {row["layer"] for row in curves} == {"1", "2", "3"}
    assert all(float(row["nats"]) == int(row["layer"]) - 0.5 + int(row["from"]) / 400 for row in curves)
    words = words_of(tmp_path / "report" / "attention_entropy.svg")
    assert {"rope", "layer 1", "layer 3", "trained at 128"} <= set(words)
    assert "rope: not measured in windows of 9,999 tokens (no document holds 9999 tokens)" in page.text


def test_without_an_attribution_there_are_no_such_figures(tmp_path):
    content = evaluation("rope", "a1", 2.2, 0.1) | {"attribution": attribution(), "entropy": entropy(128)}
    page_of(study_of(tmp_path, content))
    assert all((tmp_path / "report" / f"{name}.svg").is_file() for name in FIGURES)
    path = tmp_path / "runs" / "a1" / "evaluation" / "00.json"
    path.write_text(json.dumps({k: v for k, v in content.items() if k not in ("attribution", "entropy")}))
    page = page_of(tmp_path)
    assert not [p for p in (tmp_path / "report").iterdir() if p.stem in FIGURES]
    assert "What breaks" not in page.text and "ntropy" not in page.text


def test_seeds_are_averaged_and_each_verdict_told(tmp_path):
    contents = [
        evaluation("rope", f"run{seed}", 2.2, 0.1, seed=seed) | {"attribution": attribution(0.02 * seed)}
        for seed in (0, 1)
    ]
    page = page_of(study_of(tmp_path, *contents))
    words = words_of(tmp_path / "report" / "what_breaks.svg")
    assert words.count(change(ABLATIONS["clipped"] + 0.01)) == 2
    assert "rope (seed 0) at 1,024" in page.text and "rope (seed 1) at 1,024" in page.text


@pytest.mark.parametrize(
    "damaged",
    [
        {"attribution": 3, "entropy": []},
        {"attribution": {"lengths": [{"length": None}, 4]}, "entropy": {"curves": [{"length": 8, "layers": [3]}]}},
        {"attribution": {"lengths": [{"length": 64, "rows": [{"ablation": "clipped", "difference": float("inf")}]}]}},
    ],
)
def test_damaged_parts_leave_the_page_whole(tmp_path, damaged):
    page_of(study_of(tmp_path, evaluation("rope", "a1", 2.2, 0.1) | damaged))

"""The page and the files beside it, from invented studies of every kind a sweep can leave behind."""

import csv
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.report import write_report
from experiments.report.study import read_study
from experiments.report.tables import provenance_tables
from experiments.report.text import bits
from models.errors import InvalidInput
from tests.experiments.report.synthetic import equal_bytes, evaluation, quickstart, vocabularies, write_run, write_study
from tests.system.tiny import run_config, write_texts
from train.loop import train

OF_SCHEMES = ("bias_by_distance", "score_by_distance", "rotary_spectrum")
VOID = {"meta", "br", "img", "input", "link", "hr", "wbr"}


class Page(HTMLParser):
    """Tags must balance; collects elements, ids and visible text."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open and "script" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(study) -> Page:
    page = Page(write_report(study).read_text(encoding="utf-8"))
    assert_self_contained(page)
    return page


def assert_self_contained(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "image", "base", "form")
        assert "src" not in attributes and "srcset" not in attributes
        assert attributes.get("href", "#").startswith("#")
        assert attributes.get("href", "#")[1:] in {"", *ids}
        for name, value in attributes.items():
            assert not name.startswith("on")
            for target in re.findall(r"url\((.*?)\)", value or "") if name in ("style", "clip-path") else ():
                assert target.startswith("#") and target[1:] in ids


def rows_of(path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = quickstart(tmp_path_factory.mktemp("studies") / "quickstart")
    write_report(folder)
    return folder


def test_page_is_one_file_that_refers_to_nothing_outside(study):
    text = (study / "report" / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert_self_contained(page)
    assert "http" not in text and "@import" not in text and "url(" not in text.replace("url(#", "")
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert sum(attributes.get("role") == "img" for _, attributes in page.elements) == 8


def test_the_same_study_gives_the_same_bytes_and_leaves_no_other_files(study):
    folder = study / "report"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_report(study)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    figures = (
        "bits_per_byte_by_length",
        "change_beyond_training",
        "loss_by_position",
        "context_gain",
        "training_curves",
        *OF_SCHEMES,
    )
    expected = {f"{name}.{ending}" for name in figures for ending in ("svg", "csv")}
    assert set(before) == expected | {"index.html", "results.csv"}


def test_csv_holds_the_numbers_of_the_evaluations_exactly(study):
    wanted, positions, contexts = {}, {}, {}
    for path in study.glob("runs/*/evaluation/*.json"):
        content = json.loads(path.read_text())
        for row in content["rows"]:
            wanted[content["series"], row["length"], row["protocol"]] = (row["bits_per_byte"], row["low"], row["high"])
        for bucket in content["by_position"]["buckets"]:
            positions[content["series"], bucket["from"]] = (bucket["bits_per_byte"], bucket["tokens"])
        for point in content["context_gain"]["points"]:
            contexts[content["series"], point["context"]] = (point["bits_per_byte"], point["high"])

    def numbers(row, *names):
        return tuple(float(row[name]) if row[name] else None for name in names)

    for name in ("bits_per_byte_by_length.csv", "results.csv"):
        rows = rows_of(study / "report" / name)
        found = {
            (row["series"], int(row["length"]), row["protocol"]): numbers(row, "bits_per_byte", "low", "high")
            for row in rows
        }
        assert found == wanted
    rows = rows_of(study / "report" / "loss_by_position.csv")
    assert {(row["series"], int(row["from"])): numbers(row, "bits_per_byte", "tokens") for row in rows} == positions
    rows = rows_of(study / "report" / "context_gain.csv")
    assert {(row["series"], int(row["context"])): numbers(row, "bits_per_byte", "high") for row in rows} == contexts
    logged = [json.loads(line) for path in study.glob("runs/*/metrics.jsonl") for line in path.open()]
    losses = sorted(line["loss"] for line in logged if "loss" in line)
    assert (
        sorted(float(row["loss"]) for row in rows_of(study / "report" / "training_curves.csv") if row["loss"]) == losses
    )


def test_table_shows_every_number_in_one_format(study):
    text = (study / "report" / "index.html").read_text(encoding="utf-8")
    cells = set(re.findall(r">([^<>]*)</td>", text))
    for path in study.glob("runs/*/evaluation/*.json"):
        for row in json.loads(path.read_text())["rows"]:
            if row["status"] == "ok":
                assert {bits(row["bits_per_byte"]), bits(row["nats_per_token"]), f"{row['length']:,}"} <= cells
                assert f"{bits(row['low'])}–{bits(row['high'])}" in cells
    assert {"1,057,408", "5 min 02 s", "2,457,600", "184,320", "495,821"} <= cells


def test_figures_are_xml_whose_text_stays_text(study):
    for path in (study / "report").glob("*.svg"):
        root = ElementTree.fromstring(path.read_bytes())
        words = ["".join(element.itertext()) for element in root.iter() if element.tag.endswith("}text")]
        if path.stem in OF_SCHEMES:
            assert "alibi" in words or "rope" in words
        else:
            assert "rope" in words and "alibi" in words


def test_undefined_points_are_named_in_figure_and_table(study):
    text = Page((study / "report" / "index.html").read_text(encoding="utf-8")).text
    assert "learned: undefined beyond 128 (the table has 128 positions)" in text
    assert "learned is undefined beyond 128 tokens." in text
    assert "learned (to 128)" in text
    assert text.count("undefined: the table has 128 positions") == 8


def test_failed_missing_and_running_points_are_shown(tmp_path):
    write_run(tmp_path, "a1", [evaluation("rope", "a1", 2.2, 0.1)])
    write_run(tmp_path, "d4", [])
    points = [
        {"label": "rope", "run_id": "a1"},
        {"label": "cope", "run_id": "b2", "status": "failed", "error": "loss is not finite at step 40"},
        {"label": "fire", "run_id": "", "status": "missing"},
        {"label": "t5", "run_id": "c3", "status": "running"},
        {"label": "kerple", "run_id": "e5", "status": "interrupted"},
        {"label": "alibi", "run_id": "d4", "status": "finished"},
        {"label": "nope", "run_id": "gone", "status": "finished"},
    ]
    text = page_of(write_study(tmp_path, points)).text
    assert "cope: failed: loss is not finite at step 40" in text
    assert "fire: missing, not run yet" in text and "t5: still running" in text
    assert "kerple: interrupted, not finished" in text
    assert "alibi: finished, not evaluated" in text
    assert "nope: finished, but its folder runs/gone is missing" in text
    assert "4 of 7 points finished" not in text and "3 of 7 points finished" in text
    rows = {row["series"]: row["status"] for row in rows_of(tmp_path / "report" / "results.csv")}
    assert rows == {
        "rope": "ok",
        "cope": "failed",
        "fire": "missing",
        "t5": "running",
        "kerple": "interrupted",
        "alibi": "finished",
        "nope": "finished",
    }


def test_how_far_a_point_is_is_read_from_its_folder(tmp_path):
    """study.json is written when a sweep starts and ends; a report in between, or after a crash, says how it is."""
    labels = ("rope", "alibi", "t5", "none")
    for label in labels[:3]:
        write_run(tmp_path, label, [evaluation(label, label, 2.2, 0.1)] if label == "rope" else [])
    (tmp_path / "runs" / "alibi" / "finished.json").unlink()
    (tmp_path / "runs" / "t5" / "error.txt").write_text("the disk is full\n")
    write_study(tmp_path, [{"label": label, "run_id": label, "status": "missing"} for label in labels])
    found = {point.label: (point.status, point.error) for point in read_study(tmp_path).points}
    assert found == {
        "rope": ("finished", None),
        "alibi": ("interrupted", None),
        "t5": ("failed", "the disk is full"),
        "none": ("missing", None),
    }


@pytest.mark.parametrize("points", [[], [{"label": "x", "run_id": "q", "status": "failed", "error": "boom"}]])
def test_a_study_without_results_says_so(tmp_path, points):
    text = page_of(write_study(tmp_path, points)).text
    assert "there is nothing to compare" in text
    assert "Nothing to draw" in text and "windows of 0 tokens" not in text
    assert not list((tmp_path / "report").glob("*.svg"))
    assert (tmp_path / "report" / "results.csv").is_file()


def test_a_figure_that_lost_its_data_loses_its_old_drawing(tmp_path):
    write_run(tmp_path, "a1", [evaluation("rope", "a1", 2.2, 0.1)])
    write_study(tmp_path, [{"label": "rope", "run_id": "a1"}])
    write_report(tmp_path)
    assert (tmp_path / "report" / "context_gain.svg").is_file()
    (tmp_path / "runs" / "a1" / "evaluation" / "00.json").unlink()
    page_of(tmp_path)
    assert not (tmp_path / "report" / "context_gain.svg").exists()


def test_labels_with_markup_are_only_text(tmp_path):
    label = '<script>alert("1")</script> & <b>\'$x_1$\' url(#a) id="b" #088dfc'
    write_run(tmp_path, "a1", [evaluation(label, "a1", 2.2, 0.1)])
    page = page_of(write_study(tmp_path, [{"label": label, "run_id": "a1"}], title=label, description=label))
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert "b" not in {attributes.get("id") for _, attributes in page.elements}
    assert page.text.count(label) >= 4
    root = ElementTree.fromstring((tmp_path / "report" / "training_curves.svg").read_bytes())
    assert any("".join(element.itertext()).startswith("<script>") for element in root.iter())


def test_infinite_and_missing_numbers_are_told(tmp_path):
    content = evaluation("none", "a1", 2.2, 0.1)
    by_length = {(row["length"], row["protocol"]): row for row in content["rows"]}
    by_length[2048, "non_overlapping"]["bits_per_byte"] = float("inf")
    by_length[1024, "non_overlapping"]["bits_per_byte"] = float("nan")
    by_length[2048, "sliding"]["bits_per_byte"] = 1e300
    by_length[512, "sliding"] |= {"status": "failed", "reason": "out of memory", "bits_per_byte": None}
    write_run(tmp_path, "a1", [content])
    text = page_of(write_study(tmp_path, [{"label": "none", "run_id": "a1"}])).text
    assert text.count("▲ ∞") == 2
    assert "none: not finite at 1,024 and 2,048" in text
    assert "none: failed at 512 under sliding windows (out of memory)" in text
    assert "none is failed and not finite beyond 512 tokens." in text


def test_exploding_series_are_written_above_the_axis(tmp_path):
    quickstart(tmp_path, schemes={"alibi": (2.2, -0.01), "t5": (2.25, 0.001), "none": (2.4, 3.0)})
    write_report(tmp_path)
    svg = (tmp_path / "report" / "bits_per_byte_by_length.svg").read_text(encoding="utf-8")
    rows = [row for row in rows_of(tmp_path / "report" / "results.csv") if row["series"] == "none"]
    for row in rows:
        assert (f"▲ {bits(float(row['bits_per_byte']))}" in svg) == (int(row["length"]) > 128)


def test_seeds_share_a_line_and_equal_labels_of_other_runs_do_not(tmp_path):
    points = []
    for index, (label, seed) in enumerate([("pre", 0), ("pre", 1), ("post", 0), ("post", 0)]):
        write_run(tmp_path, f"run{index}", [evaluation(label, f"run{index}", 2.2, 0.1, seed=seed)], seed=seed)
        points.append({"label": label, "run_id": f"run{index}"})
    page_of(write_study(tmp_path, points))
    series = {row["series"] for row in rows_of(tmp_path / "report" / "results.csv")}
    assert series == {"pre", "post (run2)", "post (run3)"}


def test_damaged_files_of_a_run_are_told_and_the_rest_is_shown(tmp_path):
    write_run(tmp_path, "a1", [evaluation("rope", "a1", 2.2, 0.1)])
    (tmp_path / "runs" / "a1" / "evaluation" / "yarn.json").write_text('{"series": ')
    with (tmp_path / "runs" / "a1" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 610, "lo')
    text = page_of(write_study(tmp_path, [{"label": "rope", "run_id": "a1"}])).text
    assert "runs/a1/evaluation/yarn.json: unreadable" in text
    assert "runs/a1/metrics.jsonl: 1 unreadable line(s) left out" in text
    assert "rope loses" in text


def test_provenance_and_tokenizers_are_told_where_they_differ(tmp_path):
    for index, vocabulary in enumerate((512, 2048)):
        evaluations = [evaluation(f"v{vocabulary}", f"r{index}", 2.2, 0.1)]
        write_run(tmp_path, f"r{index}", evaluations, vocabulary=vocabulary, device_kind=f"cpu {index}")
    points = [{"label": f"v{v}", "run_id": f"r{i}", "overrides": {"size": v}} for i, v in enumerate((512, 2048))]
    page = page_of(write_study(tmp_path, points))
    words = ("cpu 0", "cpu 1", "tok512", "tok2048", "0f3c1d9a7be2", "jax = 0.10.2", "size = 2048")
    for word in (*words, "held-out text hash 4e3385e7", "data hash 9a41c07e"):
        assert word in page.text
    assert "The tokenizers differ: the same number of final tokens covers different text" in page.text
    assert page.text.count("0f3c1d9a7be2") == 1  # what all runs share is told once


def test_a_run_that_other_code_or_devices_went_on_with_says_so(tmp_path):
    begun = {"commit": "1a1a1a1a1a1a", "device_kind": "cpu", "date": "2031-01-01T00:00:00+00:00"}
    write_run(tmp_path, "a", [], from_step=300, earlier=[begun, {**begun, "commit": "2b2b2b2b2b2b"}])
    page = page_of(write_study(tmp_path, [{"label": "rope", "run_id": "a"}]))
    assert "commit 1a1a1a1a1a1a, then 2b2b2b2b2b2b, then 0f3c1d9a7be2" in page.text
    assert "device cpu devices" in page.text and "2031-01-01" not in page.text


def test_a_real_run_tells_all_that_the_report_shows_of_it(tmp_path):
    """And the invented runs hold just what training writes."""
    real, invented = tmp_path / "runs" / "real", tmp_path / "runs" / "invented"
    write_texts(tmp_path)
    train(run_config(tmp_path), real)
    write_run(tmp_path, "invented", [])
    for name in ("provenance.json", "finished.json"):
        written = json.loads((real / name).read_text())
        assert written.keys() == json.loads((invented / name).read_text()).keys()
    page_of(write_study(tmp_path, [{"label": "rope", "run_id": "real"}]))
    (row,) = rows_of(tmp_path / "report" / "results.csv")
    assert float(row["train_seconds"]) == written["seconds"] > 0
    common, _ = provenance_tables(read_study(tmp_path))
    told = {name.text: value.text for name, value in common.rows}
    assert len(told) == 10 and "–" not in {told[key] for key in told.keys() - {"commit"}}


def test_what_the_schemes_do_is_drawn_for_those_of_the_study(study):
    curves = [row for name in ("bias", "score") for row in rows_of(study / "report" / f"{name}_by_distance.csv")]
    assert {(row["scheme"], row["quantity"]) for row in curves} == {
        ("alibi", "bias"),
        ("rope", "score"),
        ("sinusoidal", "similarity"),
    }
    assert max(int(row["distance"]) for row in curves) == 2047  # of the longest length evaluated
    # ALiBi's slopes for four heads.
    slopes = {
        int(row["head"]): -float(row["value"]) for row in curves if row["scheme"] == "alibi" and row["distance"] == "1"
    }
    assert slopes == {1: 0.25, 2: 0.0625, 3: 0.015625, 4: 0.00390625}
    text = Page((study / "report" / "index.html").read_text(encoding="utf-8")).text
    assert "What the schemes do" in text and "--run RUN: learned and t5" in text
    assert "goes by the text or not by distance: none" in text
    assert "10 of 16 pairs of rope turn less than once" in text


def test_rotary_schemes_are_drawn_under_the_scalings_evaluated(tmp_path):
    as_evaluated = {"model.position.scaling.name": "ntk", "model.position.scaling.factor": "16"}
    contents = [evaluation("rope", "a1", 2.2, 0.1), evaluation("rope · ntk", "a1", 2.2, 0.1, override=as_evaluated)]
    write_run(tmp_path, "a1", contents)
    write_run(tmp_path, "b2", [evaluation("odd", "b2", 2.2, 0.1)], position="nowhere")
    page = page_of(write_study(tmp_path, [{"label": "rope", "run_id": "a1"}, {"label": "odd", "run_id": "b2"}]))
    spectrum = rows_of(tmp_path / "report" / "rotary_spectrum.csv")
    assert {(row["scaling"], row["factor"]) for row in spectrum} == {
        ("ntk", factor) for factor in ("2", "4", "8", "16")
    }
    curves = rows_of(tmp_path / "report" / "score_by_distance.csv")
    assert {row["scheme"] for row in curves} == {"rope", "rope · ntk"}
    assert not (tmp_path / "report" / "bias_by_distance.csv").exists()
    assert "odd: not drawn, as its configuration cannot be read" in page.text


EQUAL = "bits_per_byte_at_equal_context"


def test_equal_context_holds_the_numbers_of_the_evaluations_exactly(tmp_path):
    page = page_of(vocabularies(tmp_path))
    names = ("bits_per_byte", "low", "high", "tokens", "bytes")
    wanted, table = {}, {}
    for path in tmp_path.glob("runs/*/evaluation/*.json"):
        content = json.loads(path.read_text())
        for row in content["rows"]:
            table[content["series"], row["length"], row["protocol"], ""] = row["bits_per_byte"]
            if row["length"] == 128 and row["protocol"] == "non_overlapping":
                wanted[content["series"], "tokens", 128, 128] = [row[name] for name in names]
        for row in content["equal_bytes"]:
            size, length = row["context_bytes"], row["length"]
            table[content["series"], length, "non_overlapping", str(size)] = row["bits_per_byte"]
            wanted[content["series"], "bytes", size, length] = [row[name] for name in names]
    found = {
        (row["series"], row["equal"], int(row["size"]), int(row["length"])): [float(row[name]) for name in names]
        for row in rows_of(tmp_path / "report" / f"{EQUAL}.csv")
    }
    assert found == wanted and len(found) == 15
    assert {
        (row["series"], int(row["length"]), row["protocol"], row["context_bytes"]): float(row["bits_per_byte"])
        for row in rows_of(tmp_path / "report" / "results.csv")
    } == table
    root = ElementTree.fromstring((tmp_path / "report" / f"{EQUAL}.svg").read_bytes())
    words = ["".join(element.itertext()) for element in root.iter() if element.tag.endswith("}text")]
    assert words.count("Equal tokens") == 1 and words.count("Equal bytes") == 2
    for (_, unit, _, length), (value, _, _, tokens, size) in wanted.items():
        other = f"{length} tokens" if unit == "bytes" else f"{128 * size / tokens:.0f} bytes"
        assert bits(value) in words and other in words
    cells = set(re.findall(r">([^<>]*)</td>", (tmp_path / "report" / "index.html").read_text(encoding="utf-8")))
    assert {"128 tokens", "512 tokens", "128 bytes (67 tokens)", "240 bytes (73 tokens)"} <= cells
    assert "Bits per byte at equal context" in page.text


def test_without_equal_bytes_there_is_no_such_figure_nor_column(tmp_path):
    page_of(vocabularies(tmp_path))
    assert (tmp_path / "report" / f"{EQUAL}.svg").is_file()
    for index, path in enumerate(sorted(tmp_path.glob("runs/*/evaluation/*.json"))):
        content = json.loads(path.read_text())
        if index % 2:
            content["equal_bytes"] = []
        else:
            del content["equal_bytes"]
        path.write_text(json.dumps(content))
    page = page_of(tmp_path)
    assert not list((tmp_path / "report").glob(f"{EQUAL}*"))
    assert "equal context" not in page.text and "equally many" not in page.text and "context ↕" not in page.text
    assert "(67 tokens)" not in page.text and "128 tokens</td>" not in (tmp_path / "report" / "index.html").read_text()


def test_equal_context_tells_what_it_lacks(tmp_path):
    contents = [evaluation(label, label, 2.2, 0.1) for label in ("old", "short", "lost", "fine")]
    for content in contents[1:]:
        content["equal_bytes"] = equal_bytes({256: 2.1}, 2.0)
    contents[1]["equal_bytes"][0] |= {"status": "undefined", "reason": "the table has 64 positions"}
    contents[1]["equal_bytes"][0] |= dict.fromkeys(("bits_per_byte", "low", "high", "tokens", "bytes"))
    contents[2]["equal_bytes"][0] |= {"bits_per_byte": float("inf"), "low": None, "high": None}
    for content in contents:
        write_run(tmp_path, content["run_id"], [content])
    page = page_of(write_study(tmp_path, [{"label": c["series"], "run_id": c["run_id"]} for c in contents]))
    assert "short: undefined in windows of 256 bytes (the table has 64 positions)" in page.text
    assert "lost: not finite in windows of 256 bytes" in page.text
    assert "Not measured at equal bytes: old" in page.text
    svg = (tmp_path / "report" / f"{EQUAL}.svg").read_text(encoding="utf-8")
    assert ">undefined</text>" in svg and ">∞</text>" in svg and ">–</text>" in svg


def test_equal_context_averages_seeds(tmp_path):
    page_of(vocabularies(tmp_path, contexts=(128,), seeds=(0, 2)))
    svg = (tmp_path / "report" / f"{EQUAL}.svg").read_text(encoding="utf-8")
    for value in (2.345, 2.325, 2.305):  # means of 2.34 and 2.35, of 2.32 and 2.33, of 2.30 and 2.31
        assert f">{bits(value)}</text>" in svg
    assert "Dots of several seeds are means" in svg


def test_at_equal_context_what_drops_text_and_the_rest_of_failed_seeds_are_not_the_best(tmp_path):
    vocabularies(tmp_path, contexts=(128,), seeds=(0, 2))
    path = tmp_path / "runs" / "20ab34cd56ef" / "evaluation" / "00.json"  # one seed of the best
    content = json.loads(path.read_text())
    content["equal_bytes"][0] |= {"status": "failed", "bits_per_byte": None}
    path.write_text(json.dumps(content))
    for path in tmp_path.glob("runs/1*/provenance.json"):  # one of the two that come next
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"tokenizer_report": {"lossless": False}}))
    page = page_of(tmp_path)
    assert "in windows that hold equally many bytes of text vocabulary 4096 (2.325 at 128 bytes)." in page.text
    assert "vocabulary 1024: the tokenizer drops text" in page.text
    svg = (tmp_path / "report" / f"{EQUAL}.svg").read_text(encoding="utf-8")
    assert svg.count("1/2 failed</text>") == 1
    bold = re.findall(r"<text[^>]*700[^>]*>([^<]*)</text>", svg)
    assert bold.count(bits(2.325)) == 1, bold


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "must hold a file study.json"),
        ("{", "cannot be read as JSON"),
        ("[]", "a list `points`"),
        ('{"points": [3]}', "points\\[0\\]"),
        ('{"points": [{"label": "a", "status": "done"}]}', "one of finished, failed, missing, interrupted, running"),
    ],
)
def test_a_folder_that_is_no_study_is_refused_in_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "study.json").write_text(content)
    with pytest.raises(InvalidInput, match=message) as refusal:
        write_report(tmp_path)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "report").exists()


values = st.one_of(st.none(), st.floats(), st.floats(0.5, 9.0))
row = st.fixed_dictionaries(
    {
        "length": st.sampled_from([1, 128, 200, 4096]),
        "protocol": st.sampled_from(["non_overlapping", "sliding"]),
        "stride": st.sampled_from([32, 128, None]),
        "status": st.sampled_from(["ok", "undefined", "failed"]),
        "bits_per_byte": values,
        "low": values,
        "high": values,
        "nats_per_token": values,
        "perplexity": values,
    }
)
bucket = st.fixed_dictionaries({"from": st.integers(0, 4), "to": st.integers(5, 900), "bits_per_byte": values})
context = st.fixed_dictionaries(
    {"context": st.sampled_from([1, 64, 512]), "bits_per_byte": values, "low": values, "high": values}
)
point = st.fixed_dictionaries(
    {
        "label": st.text(max_size=12),
        "status": st.sampled_from(["finished", "failed"]),
        "seed": st.integers(0, 1),
        "rows": st.lists(row, max_size=6),
        "equal_bytes": st.lists(st.tuples(st.sampled_from([96, 256]), row), max_size=3),
        "buckets": st.lists(bucket, max_size=4),
        "contexts": st.lists(context, max_size=3),
        "losses": st.lists(values, max_size=5),
    }
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(points=st.lists(point, max_size=3), train_length=st.sampled_from([128, 1, None]))
def test_any_study_gives_a_whole_page(tmp_path_factory, points, train_length):
    folder = tmp_path_factory.mktemp("any")
    listed = []
    for index, content in enumerate(points):
        run = folder / "runs" / f"r{index}"
        (run / "evaluation").mkdir(parents=True)
        (run / "config.json").write_text(json.dumps({"seed": content["seed"], "train": {"batch_size": 2, "length": 8}}))
        lines = [json.dumps({"step": step, "loss": loss}) for step, loss in enumerate(content["losses"])]
        (run / "metrics.jsonl").write_text("\n".join(lines))
        result = {
            "series": content["label"],
            "train_length": train_length,
            "rows": content["rows"],
            "by_position": {"length": 900, "buckets": content["buckets"]},
            "context_gain": {"final_tokens": 4, "points": content["contexts"]},
            "equal_bytes": [{"context_bytes": size, **row} for size, row in content["equal_bytes"]],
        }
        (run / "evaluation" / "a.json").write_text(json.dumps(result))
        listed.append({"label": content["label"], "run_id": f"r{index}", "status": content["status"]})
    page_of(write_study(folder, listed, train_length=train_length))
    assert len(rows_of(folder / "report" / "results.csv")) == sum(
        len(content["rows"]) + len(content["equal_bytes"]) or 1 for content in points
    )


def test_many_points_in_the_same_state_share_a_line(tmp_path):
    write_run(tmp_path, "a1", [evaluation("rope", "a1", 2.2, 0.1)])
    missing = [{"label": label, "seed": seed, "run_id": "", "status": "missing"} for seed in (0, 1) for label in "xyz"]
    missing[-1]["train_length"] = 1024
    text = page_of(write_study(tmp_path, [{"label": "rope", "run_id": "a1"}, *missing])).text
    assert text.count("6 points missing, not run yet: x, y, z") >= 1
    assert "x (seed 0): missing" not in text
    assert "trained at 128 and 1,024 tokens" in text

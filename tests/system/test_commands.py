"""Whole commands on a tiny study: run, run again, evaluate, sample, report, and a sweep that is stopped or fails."""

import shutil
import signal
import time

import pytest

from experiments.runs import override_run, read_context, read_run
from tests.system.tiny import command, end, logged_steps, losses, one_line, read_json, start, write_study
from train.configuration import to_plain


def mark(folder):
    """Every file and when it was written, but those that say how far a study is."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("study.json", "owner.lock"))
    return {path: path.stat().st_mtime_ns for path in files if "report" not in path.parts}


def test_run_trains_evaluates_and_reports_every_point(swept):
    assert swept.ended.status == 0, swept.ended.err
    manifest = read_json(swept.folder / "study.json")
    assert [(point["label"], point["status"], point["error"]) for point in manifest["points"]] == [
        ("rope", "finished", None),
        ("alibi", "finished", None),
    ]
    assert f"report: {swept.folder / 'report' / 'index.html'}" in swept.ended.out
    assert (swept.folder / "report" / "index.html").stat().st_size > 10_000
    for label in ("rope", "alibi"):
        assert f"[{label}] evaluated {label}: 16: " in swept.ended.out
        table = read_json(swept.run_folder(label) / "evaluation" / f"{label}.json")
        assert {(row["length"], row["protocol"], row["status"]) for row in table["rows"]} == {
            (length, protocol, "ok") for length in (16, 32) for protocol in ("non_overlapping", "sliding")
        }
        assert len({row["tokens"] for row in table["rows"]}) == 1
        assert table["step"] == 12 and table["train_length"] == 16 and table["documents"] == 1
        # Bytes are tokens here, and the model knows more than nothing.
        assert all(row["tokens"] == row["bytes"] and 3 < row["bits_per_byte"] < 8 for row in table["rows"])


def test_run_again_starts_nothing(swept, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    before = mark(swept.folder)
    again = command("run", swept.config, "--output", swept.output)
    assert again.status == 0
    assert f"2 of 2 runs of {swept.folder} are finished already" in again.out
    assert mark(swept.folder) == before


def test_only_what_is_asked_anew_is_measured_anew(swept):
    run = swept.run_folder("rope")
    before = mark(run)
    asked = (swept.config, "--output", swept.output, "--config.evaluation.lengths=16,32")
    assert command("run", *asked).out.startswith("2 of 2 runs")
    assert mark(run) == before


def test_evaluate_reads_a_checkpoint_under_a_scaling(swept):
    run = swept.run_folder("rope")
    before = mark(run)
    asked = (
        run,
        "--config.model.position.scaling.name=yarn",
        "--config.model.position.scaling.factor=4.0",
        "--config.evaluation.lengths=16,64",
    )
    ended = command("evaluate", *asked)
    assert ended.status == 0, ended.err
    (written,) = mark(run).keys() - before.keys()
    assert ended.out.splitlines()[-1] == f"results: {written}"
    assert {path: time for path, time in mark(run).items() if path != written} == before
    table = read_json(written)
    assert table["override"] == {
        "model.position.scaling.name": "yarn",
        "model.position.scaling.factor": 4.0,
        "evaluation.lengths": [16, 64],
    }
    assert [row["length"] for row in table["rows"]] == [16, 16, 64, 64]
    plain = read_json(run / "evaluation" / "rope.json")
    assert table["rows"][0]["bits_per_byte"] != plain["rows"][0]["bits_per_byte"]
    # Measured once: the same question takes the answer that is there.
    assert command("evaluate", *asked).out.splitlines() == [f"results: {written}"]


def test_evaluate_takes_a_step_and_a_layer_pattern(swept):
    run = swept.run_folder("rope")
    label = ("--label", "the third")
    # Trained as one layer repeated, read as two.
    pattern = "({'position': {'name': 'none'}}, {'span': {'name': 'sliding', 'window': 4}})"
    ended = command("evaluate", run, "--step", 8, *label, f"--config.model.pattern={pattern}")
    assert ended.status == 0, ended.err
    table = read_json(run / "evaluation" / "the-third.json")
    assert table["step"] == 8
    first, second = table["override"]["model.pattern"]
    assert first["position"]["name"] == "none" and second["span"] == {"name": "sliding", "window": 4}
    ended = command("sample", run, "--tokens", 3, f"--config.model.pattern={pattern}")
    assert ended.status == 0, ended.err


def test_another_step_or_way_to_measure_never_takes_the_place_of_the_studys_own_table(swept):
    run = swept.run_folder("rope")
    before = mark(run)
    for asked, differs in (
        (("--step", 8), {"step": 8}),
        (("--config.evaluation.documents=1",), {"evaluation.documents": 1}),
    ):
        assert command("evaluate", run, *asked).status == 0
        (written,) = mark(run).keys() - before.keys()
        assert read_json(written)["override"] == differs
        written.unlink()
    for asked in (
        ("--label", "rope", "--step", 8),
        ("--label", "rope", "--config.model.position.scaling.name=yarn"),
        ("--label", "rope", "--config.evaluation.documents=1"),
    ):
        ended = command("evaluate", run, *asked)
        assert ended.status == 2 and "--label = 'rope' is not allowed; it must be another than 'rope'" in one_line(
            ended.err
        )
    assert command("evaluate", run, "--label", "rope").status == 0
    assert mark(run) == before


def test_search_finds_factors_that_are_no_worse_than_those_of_known_rules(swept):
    run = swept.run_folder("rope")
    small = ("--factor", 2, "--passages", 2, "--population", 6, "--generations", 2)
    ended = command("search", run, *small)
    assert ended.status == 0, ended.err
    found = read_json(run / "evaluation" / "searches" / "longrope-2.json")
    assert set(found["starts"]) == {"linear", "ntk", "yarn"} and found["length"] == 32 and found["split"] == "train"
    assert found["score"] == found["generations"][-1] <= min(start["score"] for start in found["starts"].values())
    assert found["generations"] == sorted(found["generations"], reverse=True) and len(found["generations"]) == 3
    factors = found["override"]["model.position.scaling.long_factor"]
    assert len(factors) == 4 and factors == sorted(factors) and factors[0] >= 1 and factors[-1] <= 2.5
    assert ended.out.splitlines()[-2] == f"results: {run / 'evaluation' / 'searches' / 'longrope-2.json'}"
    # What it says to use is what it found, and the report does not take it for an evaluation.
    _, _, options = ended.out.splitlines()[-1].partition(f"to use it: evaluate {run} ")
    under = override_run(read_run(run), read_context(run, read_run(run)), overrides_of(options))
    scaling = to_plain(under.model.position.scaling)
    assert scaling == scaling | {name.rsplit(".", 1)[1]: value for name, value in found["override"].items()}
    assert not list((run / "evaluation").glob("*search*.json"))


def overrides_of(options):
    return dict(option.removeprefix("--config.").split("=") for option in options.split())


def test_a_search_that_cannot_be_is_one_line(swept, tmp_path):
    rope = swept.run_folder("rope")
    for arguments, words in (
        ((swept.run_folder("alibi"),), "model.position = 'alibi': the search is for rotary positions"),
        ((rope, "--factor", 1), "--factor = 1.0 is not allowed; it must be a finite number above 1"),
        ((rope, "--factor", 1000), "no document of the training split holds 16001 tokens, the longest has "),
        ((rope, "--population", 3), "--population = 3 is not allowed; it must be at least 4"),
        ((rope, "--step", 5), "checkpoint of step 5 in "),
        ((tmp_path,), "is not a run folder"),
    ):
        ended = command("search", *arguments)
        assert ended.status == 2 and words in one_line(ended.err), arguments
    assert command("search", rope, "--config.model.layers=3").status == 2


def test_sample_writes_text_and_greedy_text_is_always_the_same(swept):
    greedy = ("sample", swept.run_folder("alibi"), "--prompt", "while ", "--tokens", 12, "--temperature", 0)
    one, two = command(*greedy), command(*greedy)
    assert one.status == 0, one.err
    assert one.out == two.out and one.out.startswith("while ")
    varied = command("sample", swept.run_folder("alibi"), "--samples", 3, "--tokens", 6, "--seed", 1)
    assert varied.status == 0 and varied.out.count("-" * 40) == 2


def test_sample_takes_the_largest_seed_and_does_without_the_fused_kernel(swept):
    """That kernel takes whole rows alone: a model trained with it decodes by another implementation."""
    asked = ("sample", swept.run_folder("alibi"), "--tokens", 6, "--seed", 2**32 - 1)
    plain = command(*asked)
    assert plain.status == 0, plain.err
    assert command(*asked, "--config.model.attention=fused") == plain


def test_sample_draws_nothing_that_the_tokenizer_does_not_know(tmp_path):
    config = write_study(tmp_path)
    asked = ("--point", "rope", "--config.train.steps=3", "--config.model.vocabulary_size=3000")
    assert command("train", config, "--output", tmp_path / "studies", *asked).status == 0
    (run,) = (tmp_path / "studies" / "tiny" / "runs").iterdir()
    ended = command("sample", run, "--tokens", 12, "--temperature", 2, "--top-p", 1)
    assert ended.status == 0, ended.err


def test_train_takes_one_point_of_a_sweep_and_keeps_the_others_in_the_study(swept, tmp_path):
    config = write_study(tmp_path)
    pattern = "({'position': {'name': 'rope'}}, {'position': {'name': 'none'}})"
    asked = ("--point", "alibi", f"--config.model.pattern={pattern}", "--config.train.steps=3")
    ended = command("train", config, "--output", tmp_path / "studies", *asked)
    assert ended.status == 0, ended.err
    manifest = read_json(tmp_path / "studies" / "tiny" / "study.json")
    assert [(point["label"], point["status"]) for point in manifest["points"]] == [
        ("rope", "missing"),
        ("alibi", "finished"),
    ]
    (run,) = (tmp_path / "studies" / "tiny" / "runs").iterdir()
    assert ended.out.splitlines()[-1] == f"run: {run}"
    assert [layer["position"]["name"] for layer in read_json(run / "config.json")["model"]["pattern"]] == [
        "rope",
        "none",
    ]


def test_train_takes_one_of_several_seeds_by_its_run(tmp_path):
    config = write_study(tmp_path)
    sweep = 'return [{"label": "rope", "seed": seed, "train.steps": 3} for seed in (0, 1)]'
    config.write_text(f"{config.read_text().split('def get_sweep')[0]}def get_sweep():\n    {sweep}\n")
    ended = command("train", config, "--output", tmp_path, "--point", "rope")
    assert ended.status == 2
    said = one_line(ended.err)
    assert said.startswith("longreach: --point = 'rope' is several runs, of which this trains one; it must be one of ")
    (run,) = [one.split()[0] for one in said.partition("one of ")[2].split(", ") if one.endswith("(seed 1)")]
    ended = command("train", config, "--output", tmp_path, "--point", run)
    assert ended.status == 0, ended.err
    assert ended.out.splitlines()[-1] == f"run: {tmp_path / 'tiny' / 'runs' / run}"
    assert read_json(tmp_path / "tiny" / "runs" / run / "config.json")["seed"] == 1


def test_a_point_that_fails_says_why_and_stops_no_other(tmp_path):
    config = write_study(tmp_path)
    sweep = """
def get_sweep():
    return [
        {"label": "too long", "train.length": 4000},
        {"label": "good", "train.steps": 3},
        {"label": "absurd", "optimizer.learning_rate": 1e30},
    ]
"""
    config.write_text(config.read_text().split("def get_sweep")[0] + sweep)
    ended = end(start("run", config, "--output", tmp_path / "studies"))
    assert ended.status == 1
    assert ended.err.startswith("longreach: failed: too long (the held-out text does not fit: train.length = 4000 is")
    assert "; absurd (loss, gradient or update is not finite at step" in ended.err
    assert "Traceback" not in ended.out + ended.err
    points = {point["label"]: point for point in read_json(tmp_path / "studies" / "tiny" / "study.json")["points"]}
    assert {label: point["status"] for label, point in points.items()} == {
        "too long": "failed",
        "good": "finished",
        "absurd": "failed",
    }
    assert "train.length = 4000 is not allowed; it must be at most" in points["too long"]["error"]
    assert "a lower optimizer.learning_rate" in points["absurd"]["error"]
    assert (tmp_path / "studies" / "tiny" / "report" / "index.html").exists()


def test_a_sweep_that_is_stopped_stops_its_workers_and_goes_on_later(tmp_path):
    config, output = write_study(tmp_path), tmp_path / "studies"
    asked = ("sweep", config, "--output", output, "--config.train.steps=600", "--config.checkpoint.every=100")
    process = start(*asked)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if any(logged_steps(run) > 2 for run in (output / "tiny" / "runs").glob("*")):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    ended = end(process)
    assert ended.status == 0, ended.err
    assert ended.out.splitlines()[-1] == "stopped; the same command goes on from here"
    # The other worker may not have got as far as to have anything to save.
    assert "of 600, saved; run it again to go on" in ended.out
    assert all(point["error"] is None for point in read_json(output / "tiny" / "study.json")["points"])
    again = end(start(*asked))
    assert again.status == 0, again.err
    assert again.out.splitlines()[-1] == f"study: {output / 'tiny'}"
    points = read_json(output / "tiny" / "study.json")["points"]
    assert [point["status"] for point in points] == ["finished", "finished"]
    for point in points:
        run = output / "tiny" / "runs" / point["run_id"]
        assert [step for step, _ in losses(run)] == list(range(1, 601))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_single_run_that_is_stopped_after_training_says_how_to_go_on(swept, tmp_path, monkeypatch, number):
    single = swept.config.with_name("single.py")
    single.write_text(swept.config.read_text().split("def get_sweep")[0])
    shutil.copytree(swept.output, tmp_path / "studies")
    asked = ("run", single, "--output", tmp_path / "studies", "--config.evaluation.documents=1")
    before = signal.getsignal(number)
    monkeypatch.setattr("experiments.worker.evaluate_checkpoint", lambda *_: signal.raise_signal(number))
    monkeypatch.setattr("experiments.report.write_report", lambda _: "page")
    said = "stopped; the same command goes on from here"
    assert command(*asked) == (0, f"report: page\n{said}\n", "")
    # And in its report, where training and evaluation are done.
    monkeypatch.setattr("experiments.worker.evaluate_checkpoint", lambda *_: None)
    monkeypatch.setattr("experiments.report.write_report", lambda _: signal.raise_signal(number))
    assert command(*asked) == (0, f"{said}\n", "")
    assert signal.getsignal(number) is before
    points = read_json(tmp_path / "studies" / "tiny" / "study.json")["points"]
    assert [(point["status"], point["error"]) for point in points] == [("finished", None)] * 2


def test_help_and_usage_errors(tmp_path):
    for name in ("run", "train", "sweep", "evaluate", "sample"):
        shown = command(name, "--help")
        assert shown.status == 0 and "--config.train.steps=500" in shown.out
    config = write_study(tmp_path)
    for arguments, words in (
        (("run",), "the following arguments are required: CONFIG"),
        (("run", config, "--confg.seed=1"), "unrecognized argument: --confg.seed=1"),
        (("run", config, "--config.train.steps"), "--config.train.steps needs a value: --config.train.steps=VALUE"),
        (("train", config, "more"), "unrecognized argument: more"),
    ):
        ended = command(*arguments)
        assert ended.status == 2 and ended.err.splitlines()[-1].endswith(words)
    ended = command("train", config, "--output", tmp_path, "--point", "t5")
    assert ended.status == 2
    assert one_line(ended.err) == "longreach: --point = 't5' is not allowed; it must be one of rope, alibi"

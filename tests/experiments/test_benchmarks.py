"""The benchmarks at tiny sizes: each runs and gives figures. How fast anything is, is never asked here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benchmarks import attention, decoding, overhead, training_step
from experiments.benchmarks.harness import Contender, ContenderFailed, Timing, fastest, interleave, running
from experiments.benchmarks.table import Table

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
TINY = {"layers": 2, "width": 16, "heads": 2}
SIZES = {
    training_step: training_step.Size(**TINY, length=16, batch=2, vocabulary=64, peak=64, steps=1, rounds=2),
    decoding: decoding.Size(**TINY, vocabulary=64, batches=(2,), prompt=4, count=4, rounds=2),
    attention: attention.Size(
        heads=2,
        head_size=8,
        length=64,
        lengths=(64,),
        schemes=("t5",),
        catalogue=("forgetting",),
        span_length=64,
        spans=("sliding",),
        rounds=2,
    ),
    overhead: overhead.Size(**TINY, length=16, batch=2, steps=12, every=5, bare_steps=2, rounds=1),
}
OURS = {
    training_step: list(training_step.OURS),
    decoding: ["longreach"],
    attention: ["blockwise", "reference"],
    overhead: ["bare step", "loop"],
}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contenders' processes find the repository, and the contenders below, whatever folder the tests run in."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(HERE)]))


@pytest.fixture
def without_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers cannot be imported by contenders, installed or not."""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('No module named torch', name='torch')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))


def figures_are_real(tables: list[Table]) -> bool:
    numbers = [v for table in tables for row in table.rows for v in row if isinstance(v, (int, float))]
    return bool(numbers) and all(-1 < number < float("inf") for number in numbers)


# One that starts quickly stands for all in the fast suite: the others take a minute to compile.
@pytest.mark.parametrize(
    "benchmark",
    [decoding, *(pytest.param(one, marks=pytest.mark.slow) for one in SIZES if one is not decoding)],
    ids=lambda module: module.__name__.rpartition(".")[2],
)
def test_every_benchmark_gives_figures_and_names_missing_peers(benchmark, without_peers):
    tables = list(benchmark.measure(SIZES[benchmark]))
    assert [row[0] for row in tables[0].rows] == OURS[benchmark]
    assert figures_are_real(tables)
    said = "\n".join(tables[0].notes)
    if benchmark is not overhead:
        assert "torch is not installed" in said
        assert 'pip install "longreach[peers]"' in said


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", [training_step, decoding, attention])
def test_peers_compute_the_same(benchmark):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    # Each benchmark raises where a peer's loss, parameters or tokens differ.
    table = next(iter(benchmark.measure(SIZES[benchmark])))
    assert len(table.rows) > len(OURS[benchmark]), table.notes


def test_a_peer_that_fails_is_said_and_left_out_but_our_own_failure_is_raised():
    notes: list[str] = []
    broken = Contender("broken", "contenders:raises", {}, peer=True)
    with running([broken, Contender("works", "contenders:counts", {"start": 3})], notes) as contenders:
        assert list(contenders) == ["works"]
        assert contenders["works"].facts == {"start": 3}
    assert "ZeroDivisionError" in notes[0]
    ours = Contender("broken", "contenders:raises", {})
    with pytest.raises(ContenderFailed, match="ZeroDivisionError"), running([ours], notes):
        pass


def test_contenders_take_turns_and_figures_are_medians(tmp_path):
    pair = [
        Contender(name, "contenders:counts", {"start": start, "log": str(tmp_path / "log")})
        for name, start in (("a", 0), ("b", 10))
    ]
    with running(pair, []) as contenders:
        timings = interleave(contenders, steps=2, rounds=3)
    assert (tmp_path / "log").read_text().split() == ["2", "12", "4", "14", "6", "16"]
    assert timings["a"].figures == {"count": 4}
    assert timings["b"].figures == {"count": 14}
    assert timings["a"].cpu_seconds >= 0


def test_the_fastest_is_by_cpu_seconds_among_those_measured():
    timings = {"a": Timing(1.0, 3.0, {}), "b": Timing(3.0, 1.0, {}), "c": Timing(0.1, 0.1, {})}
    assert fastest(timings, ("a", "b")) == "b"
    assert fastest(timings, ("missing",)) is None


def test_a_table_aligns_figures_and_dashes():
    table = Table("Title", {"name": "", "figure": ".1f"}, notes=["a note"])
    table.add("long name", 12.34)
    table.add("x", None)
    assert str(table).splitlines() == [
        "Title",
        "name       figure",
        "---------  ------",
        "long name    12.3",
        "x               -",
        "a note",
    ]


def test_an_unknown_benchmark_is_refused():
    command = [sys.executable, "-m", "experiments.benchmarks", "fastness"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 2
    assert "unknown benchmark 'fastness'; it must be one of training_step" in ended.stderr

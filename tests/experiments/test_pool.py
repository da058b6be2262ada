"""The order of a study's points: what starts from another one waits for it, and for nothing else."""

import os
import signal
import threading
import time

import pytest

from experiments.pool import Pool
from experiments.study import load_study
from train.loop import FINISHED

STUDY = """
from experiments.config import StudyConfig
from train.configuration import to_config_dict

def get_config():
    return to_config_dict(StudyConfig(name="order"))

def get_sweep():
    return [
        {"label": "start"},
        {"label": "long", "from": "start", "train.length": 256},
        {"label": "longer", "from": "long", "train.length": 512},
        {"label": "apart", "seed": 1},
    ]
"""


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "order.py"
    path.write_text(STUDY)
    return load_study(str(path), {}, tmp_path)


def finish(study, point):
    folder = study.run_folder(point)
    folder.mkdir(parents=True)
    (folder / FINISHED).write_text("{}")


def run(study, monkeypatch, workers, one):
    began = []

    def record(self, point, cores):
        began.append(point.label)
        return one(point)

    monkeypatch.setattr(Pool, "_one", record)
    ended = Pool(study, [], workers, evaluates=False).run(study.points)
    return began, [ended[point.run_id] for point in study.points]


def test_points_come_after_what_they_start_from_and_others_in_their_place(study, monkeypatch):
    began, ended = run(study, monkeypatch, 1, lambda point: finish(study, point) or "finished")
    assert began == ["start", "long", "longer", "apart"] and ended == ["finished"] * 4


def test_a_worker_does_not_wait_while_another_point_can_begin(study, monkeypatch):
    apart = threading.Event()

    def one(point):
        if point.label == "start":
            assert apart.wait(10)
            finish(study, point)
        elif point.label == "apart":
            apart.set()
        return "finished"

    began, _ = run(study, monkeypatch, 2, one)
    assert set(began[:2]) == {"start", "apart"} and began[2:] == ["long", "longer"]


def test_trained_is_enough_though_its_evaluation_goes_on(study, monkeypatch):
    long_began = threading.Event()

    def one(point):
        if point.label == "start":
            finish(study, point)
            assert long_began.wait(10)
        elif point.label == "long":
            long_began.set()
        return "finished"

    assert run(study, monkeypatch, 2, one)[1] == ["finished"] * 4


def test_what_starts_from_a_failed_point_is_begun_and_says_so_itself(study, monkeypatch):
    began, ended = run(study, monkeypatch, 2, lambda point: "finished" if point.label == "apart" else "failed")
    assert sorted(began) == ["apart", "long", "longer", "start"]
    assert ended == ["failed", "failed", "failed", "finished"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_points_that_wait(study, monkeypatch, number):
    monkeypatch.setattr(os, "isatty", lambda descriptor: False)  # the tests' own terminal is not the one that closes
    pool, one = Pool(study, [], 1, evaluates=False), Pool._one
    began = []

    def stopped_in_the_first(self, point, cores):
        if began:
            return one(self, point, cores)
        began.append(point.label)
        os.kill(os.getpid(), number)
        deadline = time.monotonic() + 10
        while not self._stopping and time.monotonic() < deadline:
            time.sleep(0.01)
        return "stopped"

    monkeypatch.setattr(Pool, "_one", stopped_in_the_first)
    before = signal.signal(number, signal.default_int_handler)
    try:
        assert set(pool.run(study.points).values()) == {"stopped"} and began == ["start"]
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)

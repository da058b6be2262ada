"""Points of a study as processes on this machine, some at a time."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from experiments.command_line import stop_requests
from experiments.study import Point, Study
from experiments.worker import STOPPED
from train.loop import is_finished


class Pool:
    """Runs `python -m experiments.worker` once a point, at most `workers` at a time, each line prefixed by its label.

    On CPU every worker gets cores of its own: small programs run faster on one core each than together on all.
    """

    def __init__(self, study: Study, arguments: Sequence[str], workers: int, evaluates: bool):
        self._study = study
        self._arguments = [*arguments, *(["--evaluate"] if evaluates else [])]
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        share = len(cores) // workers
        self._cores = [cores[worker * share : (worker + 1) * share] for worker in range(workers)]
        self._waiting: list[Point] = []
        self._starts: dict[str, Point | None] = {}
        self._ended: dict[str, str] = {}
        self._turn = threading.Condition()
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self._stopping = False

    def run(self, points: Sequence[Point]) -> dict[str, str]:
        """How each point ended, by run id: "finished", "stopped" or "failed".

        A point that starts from another one waits until that one is trained, or ended without; then it says so itself.
        Ctrl-C, SIGTERM and SIGHUP are passed on once; workers save and stop, points that wait are not started.
        """
        self._waiting, self._ended = list(points), {}
        self._starts = {point.run_id: self._study.start_of(point) for point in points}
        with stop_requests(self._stop), ThreadPoolExecutor(len(self._cores)) as threads:
            for future in [threads.submit(self._work, cores) for cores in self._cores]:
                future.result()
        return self._ended

    def _work(self, cores: list[int]) -> None:
        """Runs points on these cores, one after another, until none waits."""
        while (point := self._next()) is not None:
            how = "failed"
            try:
                how = self._one(point, cores)
            finally:
                with self._turn:
                    self._ended[point.run_id] = how
                    self._turn.notify_all()

    def _next(self) -> Point | None:
        """The first waiting point that can begin, once there is one; None where none waits."""
        with self._turn:
            while self._waiting:
                point = next(filter(self._can_begin, self._waiting), None)
                if point is not None:
                    self._waiting.remove(point)
                    return point
                self._turn.wait(timeout=1)  # training ends before its process does, which evaluates
            return None

    def _can_begin(self, point: Point) -> bool:
        start = self._starts[point.run_id]
        if start is None or self._stopping or is_finished(self._study.run_folder(start)):
            return True
        return start.run_id in self._ended or start.run_id not in self._starts

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True
        with self._lock:
            for process in self._running:
                process.send_signal(signal.SIGTERM)

    def _one(self, point: Point, cores: list[int]) -> str:
        if self._stopping:
            return "stopped"
        called = self._study.called(point)
        command = [sys.executable, "-m", "experiments.worker", *self._arguments, "--point", point.run_id]
        # A session of its own: a terminal's ctrl-C reaches workers once, from here.
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        if cores and len(cores) < (os.cpu_count() or 1):
            os.sched_setaffinity(process.pid, cores)
        with self._lock:
            self._running.add(process)
        if self._stopping:
            process.send_signal(signal.SIGTERM)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                print(f"[{called}] {line}", end="", flush=True)
            status = process.wait()
        finally:
            with self._lock:
                self._running.discard(process)
        return {0: "finished", STOPPED: "stopped"}.get(status, "stopped" if self._stopping else "failed")

"""Points of a study as processes on this machine, some at a time."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from experiments.study import Point, Study
from experiments.worker import STOPPED


class Pool:
    """Runs `python -m experiments.worker` once a point, at most `workers` at a time, each line prefixed by its label.

    On CPU every worker gets cores of its own: small programs run faster on one core each than together on all.
    """

    def __init__(self, study: Study, arguments: Sequence[str], workers: int, evaluates: bool):
        self._study = study
        self._arguments = [*arguments, *(["--evaluate"] if evaluates else [])]
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        share = len(cores) // workers
        self._cores: SimpleQueue[list[int]] = SimpleQueue()
        for worker in range(workers):
            self._cores.put(cores[worker * share : (worker + 1) * share])
        self._workers = workers
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self._stopping = False

    def run(self, points: Sequence[Point]) -> dict[str, str]:
        """How each point ended, by label: "finished", "stopped" or "failed".

        Ctrl-C and SIGTERM are passed on once; workers save and stop, points that wait are not started.
        """
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with ThreadPoolExecutor(self._workers) as threads:
                futures = {point.label: threads.submit(self._one, point) for point in points}
                return {label: future.result() for label, future in futures.items()}
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True
        with self._lock:
            for process in self._running:
                process.send_signal(signal.SIGTERM)

    def _one(self, point: Point) -> str:
        if self._stopping:
            return "stopped"
        cores = self._cores.get()
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
                print(f"[{point.label}] {line}", end="", flush=True)
            status = process.wait()
        finally:
            with self._lock:
                self._running.discard(process)
            self._cores.put(cores)
        return {0: "finished", STOPPED: "stopped"}.get(status, "stopped" if self._stopping else "failed")

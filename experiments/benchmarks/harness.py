"""Measuring side by side: long-lived contenders in processes of their own, asked in turn (A B A B …).

Each is pinned to the same core with one thread, so that a ratio compares work and not scheduling. Only one computes at
a time; the others wait on their pipes. Figures are medians over rounds.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

# With one contender computing and nothing else, the load is 1.
BUSY = 1.5
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
ONE_XLA_THREAD = "--xla_cpu_multi_thread_eigen=false"
INSTALL_PEERS = 'pip install "longreach[peers]"'
LOG_LINES = 15


class PeerMissing(RuntimeError):
    """A contender needs a library that is not installed."""


class ContenderFailed(RuntimeError):
    """A contender's process ended early; the message holds the end of what it printed."""


@dataclass(frozen=True)
class Contender:
    """How to build one: `target`, a "module:function", is called with `arguments` in a process of its own.

    It returns `run` and `facts`, warmed up. run(n) does n steps, returns when they are done, and may return figures of
    its own. facts, and those figures, are dictionaries that JSON can hold. peer: whether it may be missing.
    """

    name: str
    target: str
    arguments: Mapping[str, Any]
    peer: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """Medians over rounds of the seconds and CPU-seconds of a step, and of the figures that a contender measured."""

    seconds: float
    cpu_seconds: float
    figures: dict[str, float]


class Running:
    """A contender's process, built and waiting. Raises PeerMissing or ContenderFailed where it cannot be built."""

    def __init__(self, contender: Contender):
        self.name = contender.name
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by close)
        flags = f"{os.environ.get('XLA_FLAGS', '')} {ONE_XLA_THREAD}".strip()
        own = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, **ONE_THREAD, **contender.environment}
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.child", core(), contender.target, json.dumps(contender.arguments)],
            env={**os.environ, **own},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        try:
            reply = self._reply()
            if "missing" in reply:
                raise PeerMissing(f"{self.name}: {reply['missing']} is not installed; {INSTALL_PEERS}")
        except BaseException:
            self.close()
            raise
        self.facts: dict[str, Any] = reply["facts"]

    def run(self, steps: int) -> dict[str, Any]:
        """Seconds and CPU-seconds of `steps` steps, and the contender's own figures."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{steps}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None
        return self._reply()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._failure()
        return json.loads(line)

    def _failure(self) -> ContenderFailed:
        self._process.wait()
        self._log.seek(0)
        last = self._log.read().splitlines()[-LOG_LINES:]
        return ContenderFailed("\n".join([f"{self.name} ended with status {self._process.returncode}:", *last]))


@contextmanager
def running(contenders: Sequence[Contender], notes: list[str]) -> Iterator[dict[str, Running]]:
    """All contenders that can be built, by name, built one after the other; a note for every peer that cannot."""
    with ExitStack() as stack:
        built: dict[str, Running] = {}
        for contender in contenders:
            try:
                built[contender.name] = Running(contender)
            except (PeerMissing, ContenderFailed) as error:
                if not contender.peer:
                    raise
                notes.append(str(error))
                continue
            stack.callback(built[contender.name].close)
        yield built


def interleave(contenders: Mapping[str, Running], steps: int, rounds: int) -> dict[str, Timing]:
    """Runs `steps` steps of each contender in turn, `rounds` times over. They have warmed up when they are built."""
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            samples[name].append(contender.run(steps))
    return {name: _summary(replies, steps) for name, replies in samples.items()}


def _summary(replies: list[dict[str, Any]], steps: int) -> Timing:
    figures = {name: median(reply["figures"][name] for reply in replies) for name in replies[0]["figures"]}
    return Timing(
        median(reply["seconds"] for reply in replies) / steps,
        median(reply["cpu_seconds"] for reply in replies) / steps,
        figures,
    )


def fastest(timings: Mapping[str, Timing], names: Sequence[str]) -> str | None:
    """The one of `names` with the least CPU-seconds, or None where none was measured."""
    measured = [name for name in names if name in timings]
    return min(measured, key=lambda name: timings[name].cpu_seconds, default=None)


def core() -> str:
    """The core that contenders stay on, the last one allowed here; "" where processes cannot be pinned."""
    return str(max(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ""


def load_line() -> str:
    """The machine's load over the last minute, with a warning where ratios mean nothing."""
    load = os.getloadavg()[0]
    line = f"load average {load:.2f}"
    if load > BUSY:
        line += f"  WARNING: above {BUSY}, other work shares the machine and the ratios mean little"
    return line

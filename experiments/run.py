"""`run CONFIG`: a configuration, or its whole sweep, trained, evaluated, reported. `train`, `sweep` are parts of it."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.command_line import Parser, Stopped, fail, run_command, stop_requests, use_compilation_cache
from experiments.evaluation.checkpoint import all_measured, read_provenance
from experiments.pool import Pool
from experiments.study import Point, Study, load_study, read_error, write_manifest
from experiments.worker import work
from models.errors import InvalidInput
from train.data import prepare
from train.loop import Diverged, Interrupted, is_finished


def study_parser(command: str, description: str) -> Parser:
    """The arguments of every command that starts from a configuration file."""
    parser = Parser(command, description)
    parser.add_argument("config", metavar="CONFIG", help="a configuration file, FILE.py or FILE.py:argument")
    parser.add_argument(
        "--output", type=Path, default=Path("studies"), help="folder that holds the study's folder (default: studies)"
    )
    return parser


def run_study(study: Study, points: Sequence[Point], arguments: Sequence[str], evaluates: bool) -> bool:
    """Trains and evaluates those of `points` that are not finished. Whether they ended; False where asked to stop.

    A point that fails does not stop the others. A single point runs in this process.
    """
    write_manifest(study)
    waiting = [point for point in points if not _done(study, point, evaluates)]
    skipped = len(points) - len(waiting)
    if skipped:
        print(f"{skipped} of {len(points)} runs of {study.folder} are finished already", flush=True)
    _tell_other_text(study, points)
    try:
        if len(points) == 1:
            for point in waiting:
                _here(study, point, evaluates)
            return True
        if not waiting:
            return True
        pool = Pool(study, arguments, _workers(study, len(waiting)), evaluates)
        return "stopped" not in pool.run(waiting).values()
    except Interrupted as stopped:
        print(stopped)
        return False
    except Stopped:
        return False
    finally:
        write_manifest(study)


def _here(study: Study, point: Point, evaluates: bool) -> None:
    use_compilation_cache()
    try:
        work(study, point, evaluates)
    except Diverged as error:
        fail(str(error), 1)


def _workers(study: Study, waiting: int) -> int:
    workers = study.config.launcher.workers
    if workers == 0:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") and _on_cpu() else 1
    return max(1, min(workers, waiting))


def _on_cpu() -> bool:
    """Whether workers will compute on CPU. Asked of a short-lived process: this one must not take an accelerator."""
    if os.environ.get("JAX_PLATFORMS"):
        return os.environ["JAX_PLATFORMS"] == "cpu"
    ask = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
    return subprocess.run(ask, capture_output=True, text=True).stdout.strip() == "cpu"


def _done(study: Study, point: Point, evaluates: bool) -> bool:
    """Whether nothing is left to do. Evaluation itself keeps what was measured the same way, so this may say no."""
    folder = study.run_folder(point)
    if read_error(folder) is not None or not is_finished(folder):
        return False
    try:
        return not evaluates or all_measured(folder, point.config, point.label, point.config.evaluation)
    except InvalidInput:  # a damaged tokenizer, say: the worker will say so of this point alone
        return False


def _tell_other_text(study: Study, points: Sequence[Point]) -> None:
    """A line that names the finished ones of `points` that were trained on other text than they would be now.

    It costs one reading of each corpus, and what was never encoded before is encoded.
    """
    now: dict[Any, dict[str, str]] = {}
    other = []
    for point in points:
        folder, config = study.run_folder(point), point.config
        if not is_finished(folder):
            continue
        source = (config.data.corpus, config.tokenizer)
        if source not in now:
            try:
                now[source] = prepare(config.data, config.tokenizer).hashes
            except InvalidInput:  # the text is gone, say: what was trained on it stands
                now[source] = {}
        began = read_provenance(folder)
        if any(began.get(name, value) != value for name, value in now[source].items()):
            other.append(f"{study.called(point)} ({folder})")
    if other:
        print(
            "longreach: trained on other text, or with another tokenizer, than the configuration gives now: "
            f"{', '.join(other)}; to train a run anew, remove its folder",
            file=sys.stderr,
            flush=True,
        )


def finish(study: Study, points: Sequence[Point], ended: bool) -> None:
    """Says how to go on where a study was stopped, and exits with 1 where a run failed."""
    if not ended:
        print("stopped; the same command goes on from here")
        return
    failed = []
    for point in points:
        folder = study.run_folder(point)
        error = read_error(folder)
        if error is None and not is_finished(folder):
            error = "it ended without finishing"  # killed, or in use by another process: its own lines say
        if error is not None:
            failed.append(f"{study.called(point)} ({error})")
    if failed:
        fail(f"failed: {'; '.join(failed)}", 1)


def main() -> None:
    parser = study_parser("run", "Trains a configuration, or its whole sweep, evaluates every run, writes the report.")
    arguments, overrides = parser.parse()
    study = load_study(arguments.config, overrides, arguments.output)
    try:
        with stop_requests():  # training has a way of its own, by which it saves first
            ended = run_study(study, study.points, worker_arguments(arguments, overrides), evaluates=True)
            from experiments.report import write_report  # here, as its drawing library takes long to import

            print(f"report: {write_report(study.folder)}")
    except Stopped:
        ended = False
    finish(study, study.points, ended)


def worker_arguments(arguments, overrides: dict[str, str]) -> list[str]:
    """The same study, as a worker's arguments."""
    changes = [f"--config.{path}={value}" for path, value in overrides.items()]
    return [arguments.config, "--output", str(arguments.output), *changes]


if __name__ == "__main__":
    run_command(main)

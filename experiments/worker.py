"""One point of a study: train it, evaluate it, write down what it failed with. A sweep runs each in its own process."""

import functools
import sys
from pathlib import Path

from experiments.command_line import Parser, fail, run_command, use_compilation_cache
from experiments.evaluation.checkpoint import evaluate_checkpoint, open_checkpoint, series_of
from experiments.study import ERROR, Point, Study, load_study, read_error
from models.errors import InvalidInput
from train.checkpoints import saved_steps
from train.lease import InUse
from train.loop import Diverged, Interrupted, is_finished, train

# What a worker exits with after it was asked to stop and saved.
STOPPED = 75


def work(study: Study, point: Point, evaluates: bool) -> None:
    """Trains and evaluates a point, skipping what is finished.

    A failure is written to the run folder's error.txt and raised again; a new attempt removes the file first. Raises
    Interrupted where training was asked to stop.
    """
    folder = study.run_folder(point)
    (folder / ERROR).unlink(missing_ok=True)
    try:
        _require_start(study, point)
        train(point.config, folder)
        if evaluates:
            evaluate(study, point)
    except (InUse, Interrupted, BrokenPipeError):  # the last: nobody reads the output any more
        raise
    except Exception as error:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ERROR).write_text((str(error).splitlines() or [type(error).__name__])[0] + "\n")
        raise


def _require_start(study: Study, point: Point) -> None:
    """Raises InvalidInput where a point is to begin from one that did not finish training."""
    start = study.start_of(point)
    if start is None or is_finished(study.run_folder(start)) or saved_steps(study.run_folder(point) / "checkpoints"):
        return
    error = read_error(study.run_folder(start))
    problem = f"failed: {error}" if error is not None else "is not finished"
    raise InvalidInput(f"it starts from {study.called(start)!r}, which {problem}")


def evaluate(study: Study, point: Point) -> None:
    """Evaluates a finished point as the study asks."""
    checkpoint = open_checkpoint(study.run_folder(point), point.config)
    config = point.config
    series = series_of(checkpoint.model, point.label, config.train.length, config.evaluation)
    evaluate_checkpoint(checkpoint, series, config.evaluation, functools.partial(print, flush=True))


def main() -> None:
    parser = Parser("worker", "Trains, and with --evaluate evaluates, one point of a study.")
    parser.add_argument("config")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--point", required=True, help="the run id of the point")
    parser.add_argument("--evaluate", action="store_true")
    arguments, overrides = parser.parse()
    use_compilation_cache()
    study = load_study(arguments.config, overrides, arguments.output)
    point = next((point for point in study.points if point.run_id == arguments.point), None)
    if point is None:
        raise InvalidInput(f"{arguments.config} changed since this sweep began; start it again")
    try:
        work(study, point, arguments.evaluate)
    except Interrupted as stopped:
        print(stopped, flush=True)
        sys.exit(STOPPED)
    except Diverged as error:
        fail(str(error), 1)


if __name__ == "__main__":
    run_command(main)

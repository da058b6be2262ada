"""`train CONFIG`: one run, in this process, or in one process of several."""

from collections.abc import Sequence

from experiments.command_line import run_command
from experiments.run import finish, run_study, study_parser, worker_arguments
from experiments.study import Point, load_study
from models.errors import InvalidInput, require


def main() -> None:
    parser = study_parser("train", "Trains the configuration itself, without its sweep, or one point of the sweep.")
    parser.add_argument("--point", metavar="LABEL", help="train this point of the sweep (or a run's id)")
    group = parser.add_argument_group("one run in several processes (each is started with the same command)")
    group.add_argument("--coordinator", metavar="ADDRESS:PORT", help="where the first process listens")
    group.add_argument("--processes", type=int, metavar="N", help="how many there are")
    group.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")
    group.add_argument("--cluster", action="store_true", help="in place of these: ask the cluster (Slurm, a TPU pod)")
    arguments, overrides = parser.parse()
    several = (arguments.coordinator, arguments.processes, arguments.process)
    if arguments.cluster:
        require(several == (None,) * 3, "--coordinator, --processes, --process", several, "left out with --cluster")
        import jax

        jax.distributed.initialize()
    elif any(value is not None for value in several):
        require(None not in several, "--coordinator, --processes, --process", several, "given together")
        require(arguments.processes >= 1, "--processes", arguments.processes, "at least 1")
        allowed = f"at least 0 and below --processes = {arguments.processes}"
        require(0 <= arguments.process < arguments.processes, "--process", arguments.process, allowed)
        import jax

        jax.distributed.initialize(*several)
    study = load_study(arguments.config, overrides, arguments.output, sweep=arguments.point is not None)
    point = study.points[0] if arguments.point is None else _chosen(study.points, arguments.point)
    ended = run_study(study, [point], worker_arguments(arguments, overrides), evaluates=False)
    if ended:
        print(f"run: {study.run_folder(point)}")
    finish(study, [point], ended)


def _chosen(points: Sequence[Point], name: str) -> Point:
    """The point of this label or run id. Raises InvalidInput where there is none, or where its seeds are several."""
    chosen = [point for point in points if name in (point.label, point.run_id)]
    if len(chosen) > 1:
        runs = ", ".join(f"{point.run_id} (seed {point.seed})" for point in chosen)
        raise InvalidInput(f"--point = {name!r} is several runs, of which this trains one; it must be one of {runs}")
    if not chosen:
        labels = ", ".join(dict.fromkeys(point.label for point in points))
        raise InvalidInput(f"--point = {name!r} is not allowed; it must be one of {labels}")
    return chosen[0]


if __name__ == "__main__":
    run_command(main)

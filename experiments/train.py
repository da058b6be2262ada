"""`train CONFIG`: one run, in this process, or in one process of several."""

from experiments.command_line import run_command
from experiments.run import finish, run_study, study_parser, worker_arguments
from experiments.study import load_study
from models.errors import InvalidInput, require


def main() -> None:
    parser = study_parser("train", "Trains the configuration itself, without its sweep, or one point of the sweep.")
    parser.add_argument("--point", metavar="LABEL", help="train this point of the configuration's sweep")
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
    chosen = study.points
    if arguments.point is not None:
        chosen = [point for point in study.points if point.label == arguments.point]
        if not chosen:
            labels = ", ".join(point.label for point in study.points)
            raise InvalidInput(f"--point = {arguments.point!r} is not allowed; it must be one of {labels}")
    ended = run_study(study, chosen, worker_arguments(arguments, overrides), evaluates=False)
    if ended:
        print(f"run: {study.run_folder(chosen[0])}")
    finish(study, chosen, ended)


if __name__ == "__main__":
    run_command(main)

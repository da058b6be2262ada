"""`train CONFIG`: one run, in this process, or in one process of several."""

from experiments.command_line import run_command
from experiments.run import finish, run_study, study_parser, worker_arguments
from experiments.study import load_study
from models.errors import InvalidInput


def main() -> None:
    parser = study_parser("train", "Trains the configuration itself, without its sweep, or one point of the sweep.")
    parser.add_argument("--point", metavar="LABEL", help="train this point of the configuration's sweep")
    several = parser.add_argument_group("one run in several processes (each is started with the same command)")
    several.add_argument("--coordinator", metavar="ADDRESS:PORT", help="where the first process listens")
    several.add_argument("--processes", type=int, metavar="N", help="how many there are")
    several.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")
    arguments, overrides = parser.parse()
    if arguments.coordinator is not None:
        import jax

        jax.distributed.initialize(arguments.coordinator, arguments.processes, arguments.process)
    study = load_study(arguments.config, overrides, arguments.output, sweep=arguments.point is not None)
    if arguments.point is not None:
        chosen = [point for point in study.points if point.label == arguments.point]
        if not chosen:
            labels = ", ".join(point.label for point in study.points)
            raise InvalidInput(f"--point = {arguments.point!r} is not allowed; it must be one of {labels}")
        study = study._replace(points=chosen)
    ended = run_study(study, worker_arguments(arguments, overrides), evaluates=False)
    if ended:
        print(f"run: {study.run_folder(study.points[0])}")
    finish(study, ended)


if __name__ == "__main__":
    run_command(main)

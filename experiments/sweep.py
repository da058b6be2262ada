"""`sweep CONFIG`: trains every run of a configuration's sweep; `evaluate` and `report` follow when wanted."""

from experiments.command_line import run_command
from experiments.run import finish, run_study, study_parser, worker_arguments
from experiments.study import load_study


def main() -> None:
    parser = study_parser("sweep", "Trains every run of a configuration's sweep that is not finished.")
    arguments, overrides = parser.parse()
    study = load_study(arguments.config, overrides, arguments.output)
    ended = run_study(study, study.points, worker_arguments(arguments, overrides), evaluates=False)
    if ended:
        print(f"study: {study.folder}")
    finish(study, study.points, ended)


if __name__ == "__main__":
    run_command(main)

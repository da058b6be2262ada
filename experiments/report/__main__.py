"""`report STUDY`: writes the report of what a study holds so far."""

from pathlib import Path

import jax

from experiments.command_line import Parser, run_command
from experiments.report import write_report


def main() -> None:
    parser = Parser("report", "Writes STUDY/report/index.html, its figures as SVG and their numbers as CSV.")
    parser.add_argument("study", metavar="STUDY", type=Path, help="a study folder, as `run` makes it")
    arguments, overrides = parser.parse()
    if overrides:
        parser.error("a report takes no overrides: it shows what was measured")
    jax.config.update("jax_platforms", "cpu")  # an accelerator is for those who train
    print(f"report: {write_report(arguments.study)}")


if __name__ == "__main__":
    run_command(main)

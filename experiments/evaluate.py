"""`evaluate RUN`: a trained run at any lengths, under any positional override, without training again."""

import functools
from pathlib import Path

from experiments.command_line import Parser, run_command, use_compilation_cache
from experiments.evaluation.checkpoint import (
    evaluate_checkpoint,
    evaluation_file,
    open_checkpoint,
    overridden,
    regrouped,
    series_of,
)
from experiments.runs import override_run, read_context, read_run
from models.errors import require


def main() -> None:
    parser = Parser("evaluate", "Evaluates the newest undamaged checkpoint of a run folder, parameters alone.")
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder: STUDY/runs/ID")
    parser.add_argument("--step", type=int, help="evaluate this saved step (default: the newest)")
    parser.add_argument("--label", help="what the results are called (default: the run's label and what is overridden)")
    arguments, overrides = parser.parse()
    trained = read_run(arguments.run)
    context = read_context(arguments.run, trained)
    under = override_run(trained, context, overrides)
    use_compilation_cache()
    checkpoint = open_checkpoint(arguments.run, trained, arguments.step)
    # An attribution tells more of the same series; it makes no other one.
    changes = {path: value for path, value in under.changes.items() if path != "evaluation.attribution"}
    details = [f"{path.split('.', 1)[1]} {value}" for path, value in changes.items()]
    # Neither another step nor another way to measure is the study's own table: never its label, never its file.
    if arguments.step is not None:
        changes["step"] = arguments.step
        details.append(f"step {arguments.step}")
    label = arguments.label or ", ".join([context.label, *details])
    own = [one.label for one in series_of(trained.model, context.label, trained.train.length, context.evaluation)]
    if under.model != trained.model:
        checkpoint = regrouped(checkpoint, under.model)
        series = [overridden(checkpoint, label, under.model, changes)]
    else:
        alone = series_of(checkpoint.model, label, trained.train.length, under.evaluation)
        series = [one._replace(override=changes | one.override) for one in alone]
    if changes or label != context.label:
        for one in series:
            why = f"another than {one.label!r}, as the study calls a table of its own, which this one would replace"
            require(one.label not in own, "--label", label, why)
    evaluate_checkpoint(checkpoint, series, under.evaluation, functools.partial(print, flush=True))
    for one in series:
        print(f"results: {evaluation_file(arguments.run, one.label)}")


if __name__ == "__main__":
    run_command(main)

"""`search RUN`: LongRoPE's factors for a trained run, found by an evolution that its own loss guides."""

import argparse
import functools
import math
import time
from pathlib import Path
from typing import Any

from experiments.command_line import Parser, run_command, use_compilation_cache
from experiments.evaluation.checkpoint import Checkpoint, open_checkpoint
from experiments.longrope.evolution import Candidate, Scored, evolve, space_of
from experiments.longrope.scheme import searchable, start_candidates
from experiments.longrope.scoring import Passages, choose_passages, scorer
from experiments.runs import read_context, read_run
from models.errors import require
from train.data import prepare
from train.files import write_json

FIELDS = "model.position.scaling."
say = functools.partial(print, flush=True)


def main() -> None:
    parser = Parser(
        "search",
        "Searches LongRoPE's factors for the newest undamaged checkpoint of a run folder: those under which its loss "
        "on longer text is least. It reads the training split, of which no evaluation scores anything.",
    )
    parser.epilog = None
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder: STUDY/runs/ID")
    parser.add_argument("--factor", type=float, default=4.0, help="how many training lengths to reach (default: 4)")
    parser.add_argument("--step", type=int, help="search on this saved step (default: the newest)")
    parser.add_argument("--passages", type=int, default=8, help="texts of that length that are read (default: 8)")
    parser.add_argument("--population", type=int, default=32, help="candidates of a generation (default: 32)")
    parser.add_argument("--generations", type=int, default=8, help="how many follow the first (default: 8)")
    parser.add_argument("--seed", type=int, default=0)
    arguments, overrides = parser.parse()
    if overrides:
        parser.error("a search takes no overrides: it changes the scaling alone")
    _check(arguments)
    config = read_run(arguments.run)
    searchable(config.model)
    use_compilation_cache()
    checkpoint = open_checkpoint(arguments.run, config, arguments.step)
    trained, length = config.train.length, round(arguments.factor * config.train.length)
    require(
        length > trained, "--factor", arguments.factor, f"such that it reaches beyond the {trained} tokens trained at"
    )
    store = prepare(config.data, config.tokenizer).train
    passages = choose_passages(store, length, arguments.passages, arguments.seed)
    search(checkpoint, passages, arguments)


def _check(arguments: argparse.Namespace) -> None:
    factor = arguments.factor
    require(math.isfinite(factor) and factor > 1, "--factor", factor, "a finite number above 1")
    for name, least in (("passages", 1), ("population", 4), ("generations", 0), ("seed", 0)):
        value = getattr(arguments, name)
        require(value >= least, f"--{name}", value, f"at least {least}")


def search(checkpoint: Checkpoint, passages: Passages, arguments: argparse.Namespace) -> None:
    """Searches, tells how it goes, and writes what was found into the run folder's evaluation/searches/."""
    factor, generations = arguments.factor, arguments.generations
    trained, length = checkpoint.config.train.length, len(passages.tokens[0]) - 1
    scheme = searchable(checkpoint.model)
    starts = start_candidates(scheme, checkpoint.model.head_width, factor, trained)
    pairs = scheme.width(checkpoint.model.head_width) // 2
    say(
        f"searching {pairs} factors for {length} tokens, {trained} trained at, on {len(passages.tokens)} passages of "
        f"the training split; scores are nats per token beyond {trained}"
    )
    started = time.monotonic()
    of_starts: dict[str, float] = {}
    of_generations: list[float] = []

    def report(generation: int, ranked: list[Scored]) -> None:
        if generation == 0:
            scores = dict(ranked)
            of_starts.update((name, scores[candidate]) for name, candidate in starts.items())
            say("start: " + ", ".join(f"{name} {score:.4f}" for name, score in of_starts.items()))
        of_generations.append(ranked[0].score)
        seconds = time.monotonic() - started
        say(f"generation {generation} of {generations}: best {ranked[0].score:.4f} ({seconds:.0f} s)")

    batch_tokens = read_context(checkpoint.folder, checkpoint.config).evaluation.batch_tokens
    score = scorer(checkpoint, factor, passages, batch_tokens)
    space = space_of(factor, trained)
    best = evolve(score, list(starts.values()), space, arguments.population, generations, arguments.seed, report)[0]
    override = override_of(best.candidate, factor, trained)
    path = checkpoint.folder / "evaluation" / "searches" / f"longrope-{factor:g}.json"
    content = {
        "run_id": checkpoint.folder.name,
        "step": checkpoint.step,
        "seed": arguments.seed,
        "train_length": trained,
        "length": length,
        "factor": factor,
        "split": "train",
        "documents": passages.documents,
        "starts": {name: {"score": of_starts[name], "factors": one.factors} for name, one in starts.items()},
        "generations": of_generations,
        "score": best.score,
        "override": override,
    }
    write_json(path, content)
    say(f"results: {path}")
    options = " ".join(f"--config.{name}={_option(value)}" for name, value in override.items())
    say(f"to use it: evaluate {checkpoint.folder} {options}")


def override_of(candidate: Candidate, factor: float, original_length: int) -> dict[str, Any]:
    """The fields of the configuration under which a checkpoint is read with the candidate."""
    return {
        FIELDS + "name": "longrope",
        FIELDS + "factor": factor,
        FIELDS + "original_length": original_length,
        FIELDS + "long_factor": list(candidate.factors),
        FIELDS + "unscaled_tokens": candidate.unscaled_tokens,
    }


def _option(value: Any) -> str:
    return ",".join(map(str, value)) + "," * (len(value) == 1) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    run_command(main)

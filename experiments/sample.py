"""`sample RUN`: text from a checkpoint, under any positional override."""

import argparse
import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from experiments.command_line import Parser, run_command, use_compilation_cache
from experiments.evaluation.checkpoint import open_checkpoint, overridden, regrouped
from experiments.runs import override_run, read_context, read_run
from models.decoding import generate
from models.errors import require
from models.sampling import Sampler
from models.transformer import unroll_parameters
from train.tokenizers import load_tokenizer


def main() -> None:
    parser = Parser(
        "sample", "Writes text that follows a prompt, from the newest undamaged checkpoint of a run folder."
    )
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder: STUDY/runs/ID")
    parser.add_argument("--prompt", default="", help="what the text begins with; empty: a new document")
    parser.add_argument("--tokens", type=int, default=200, help="how many new tokens")
    parser.add_argument("--samples", type=int, default=1, help="how many texts")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 is greedy")
    parser.add_argument("--top-k", type=int, default=0, help="keep the k likeliest tokens; 0 keeps all")
    parser.add_argument("--top-p", type=float, default=0.95, help="keep the likeliest tokens of this total probability")
    parser.add_argument("--seed", type=int, default=0)
    arguments, overrides = parser.parse()
    require(arguments.tokens >= 1, "--tokens", arguments.tokens, "at least 1")
    require(arguments.samples >= 1, "--samples", arguments.samples, "at least 1")
    require(0 <= arguments.seed < 2**32, "--seed", arguments.seed, "at least 0 and below 4294967296")
    sampler = Sampler(arguments.temperature, arguments.top_k, arguments.top_p)
    trained = read_run(arguments.run)
    under = override_run(trained, read_context(arguments.run, trained), overrides)
    use_compilation_cache()
    checkpoint = regrouped(open_checkpoint(arguments.run, trained), under.model)
    model = overridden(checkpoint, "", under.model, {}).model_at(0)
    tokenizer = load_tokenizer(arguments.run / "tokenizer")

    prompt = np.array([tokenizer.boundary_id, *tokenizer.encode(arguments.prompt)], np.int32)
    model.require_length("--tokens plus the prompt", len(prompt) + arguments.tokens)
    prompts = jnp.tile(prompt, (arguments.samples, 1))
    parameters = unroll_parameters(model, checkpoint.parameters)
    # The fused kernel takes whole rows alone, and a new token is none.
    model = model.replace(layer_loop="unroll", attention="auto" if model.attention == "fused" else model.attention)
    sampler = dataclasses.replace(sampler, vocabulary_size=tokenizer.vocabulary_size)
    valid = jnp.ones(prompts.shape, bool)
    seed = np.uint32(arguments.seed)
    tokens = np.asarray(generate(model, sampler, arguments.tokens, parameters, prompts, valid, seed))
    for number, row in enumerate(tokens):
        if number:
            print("-" * 40)
        # What follows the end of a document is another document.
        ended = np.flatnonzero(row == tokenizer.boundary_id)
        row = row[: ended[0]] if len(ended) else row
        print(tokenizer.decode(np.concatenate([prompt, row])))


if __name__ == "__main__":
    run_command(main)

"""How well a checkpoint reads text under a candidate: the evaluation's own scores, on text that it never scores."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments.evaluation.checkpoint import Checkpoint
from experiments.evaluation.score import score_windows
from experiments.evaluation.windows import Window
from experiments.longrope.evolution import Candidate
from experiments.longrope.scheme import holding, with_candidates
from models.errors import InvalidInput
from train.store import TokenStore


class Passages(NamedTuple):
    """Text to search on. tokens: ids, int32 [length + 1] each. documents: the names of those they are from."""

    tokens: list[np.ndarray]
    documents: list[str]


def choose_passages(store: TokenStore, length: int, count: int, seed: int) -> Passages:
    """`count` passages of `length` tokens and a next one, each from a document of its own while there are enough.

    Raises InvalidInput where no document holds one.
    """
    sizes = np.diff(store.document_starts)
    holding_one = np.flatnonzero(sizes > length)
    if len(holding_one) == 0:
        raise InvalidInput(
            f"no document of the training split holds {length + 1} tokens, the longest has {sizes.max()}: "
            "a smaller --factor is needed"
        )
    rng = np.random.default_rng(seed)
    order = np.resize(rng.permutation(holding_one), count)
    tokens = []
    for document in order:
        start = int(rng.integers(sizes[document] - length))
        tokens.append(store.document(int(document))[0][start : start + length + 1])
    return Passages(tokens, [store.document_names[document] for document in order])


def scorer(
    checkpoint: Checkpoint, factor: float, passages: Passages, batch_tokens: int
) -> Callable[[Candidate], float]:
    """The score of a candidate: mean nats of the tokens of each passage beyond the length trained at.

    Up to that length queries are rotated as in training, whatever the candidate. One program is compiled for all.
    Raises InvalidInput where the model has no rotary positions to search for.
    """
    trained = checkpoint.config.train.length
    model = with_candidates(checkpoint.model, factor, trained)
    length = len(passages.tokens[0]) - 1
    batch_tokens = min(batch_tokens, length * len(passages.tokens))  # a batch is filled up with padding
    windows = [Window(index, 0, trained, length) for index in range(len(passages.tokens))]

    def score(candidate: Candidate) -> float:
        parameters = holding(model, checkpoint.parameters, candidate)
        nats = score_windows(model, parameters, passages.tokens, windows, length, batch_tokens)
        return float(np.mean([window.mean(dtype=np.float64) for window in nats]))

    return score

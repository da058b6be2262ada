"""One table per checkpoint and scheme: every length, both protocols, loss by position, the worth of context."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.evaluation.config import EvaluationConfig
from experiments.evaluation.score import score_windows
from experiments.evaluation.statistics import by_position, summarize
from experiments.evaluation.windows import Window, final_windows, sliding_windows
from models.config import ModelConfig
from models.errors import InvalidInput, require
from train.provenance import hash_of
from train.store import TokenStore

ModelAt = Callable[[int], ModelConfig]


class Text(NamedTuple):
    """What is scored. tokens: ids, int32 [n + 1] a document. byte_lengths: of each target, int32 [n]. names: of the
    documents."""

    tokens: list[np.ndarray]
    byte_lengths: list[np.ndarray]
    names: tuple[str, ...]

    def held(self) -> int:
        """Targets of the longest document: the longest window that one holds."""
        return max(len(ids) - 1 for ids in self.tokens)

    def hash(self) -> str:
        """The same for all tokenizers under which the same bytes of the same documents are scored."""
        return hash_of([[name, int(sizes.sum())] for name, sizes in zip(self.names, self.byte_lengths, strict=True)])


class Scored(NamedTuple):
    """Per document: nats of every target, float32 [n], and its position in the window that scored it, int64 [n]."""

    nats: list[np.ndarray]
    positions: list[np.ndarray]


def choose_text(store: TokenStore, config: EvaluationConfig) -> Text:
    """The first documents that hold the longest window, made up from the longest others where these are too few."""
    needed = max(config.lengths) + 1
    sizes = np.diff(store.document_starts)
    order = [int(i) for i in np.flatnonzero(sizes >= needed)[: config.documents]]
    order += [int(i) for i in np.argsort(-sizes, kind="stable") if i not in set(order)][: config.documents - len(order)]
    limit = config.tokens_per_document + 1 if config.tokens_per_document else None
    chosen = [(store.document_names[i], *store.document(i)) for i in order if sizes[i] > 1]
    if not chosen:
        raise InvalidInput("the held-out split has no document of two or more tokens: nothing can be scored")
    return Text(
        [np.asarray(ids[:limit]) for _, ids, _ in chosen],
        [np.asarray(lengths[1:limit]) for _, _, lengths in chosen],
        tuple(name for name, _, _ in chosen),
    )


def evaluate_series(model_at: ModelAt, parameters: Any, text: Text, config: EvaluationConfig) -> dict[str, Any]:
    """Rows (length × protocol), loss by position at the longest length, and context gain, as plain JSON values.

    `model_at(length)` is the model to run at a length: a scaling's factor may depend on it. A length at which it is
    undefined gives rows that say so, a failure gives rows with its reason; neither stops the others.
    """
    rows, position_table = [], None
    for length in sorted(config.lengths):
        for protocol, stride in (("non_overlapping", length), ("sliding", config.stride(length))):
            row, scored = measure(model_at, parameters, text, length, protocol, stride, config)
            if scored is not None and protocol == "non_overlapping":
                table = by_position(scored.nats, text.byte_lengths, scored.positions, length)
                position_table = {"length": length, "buckets": table}
            rows.append(row)
    equal_bytes = []
    for count in sorted(config.context_bytes):
        length = max(1, round(count * _targets(text) / sum(int(sizes.sum()) for sizes in text.byte_lengths)))
        row, _ = measure(model_at, parameters, text, length, "non_overlapping", length, config)
        equal_bytes.append({"context_bytes": count} | row)
    return {
        "documents": len(text.tokens),
        "rows": rows,
        "equal_bytes": equal_bytes,
        "by_position": position_table,
        "context_gain": context_gain(model_at, parameters, text, _longest(rows), config),
    }


def _longest(rows: Sequence[dict[str, Any]]) -> int:
    """The longest window that could be measured; 0 without one."""
    return max((row["length"] for row in rows if row["status"] == "ok"), default=0)


def _targets(text: Text) -> int:
    return sum(len(ids) - 1 for ids in text.tokens)


def measure(
    model_at: ModelAt, parameters: Any, text: Text, length: int, protocol: str, stride: int, config: EvaluationConfig
) -> tuple[dict[str, Any], "Scored | None"]:
    """One row of the table, and, where it could be measured, what lies behind it.

    A length that no document holds is undefined: its windows would be those of a shorter one. A row that failed says in
    `again` whether another try, with more memory, may end otherwise.
    """
    row = {"length": length, "protocol": protocol, "stride": stride, "status": "ok", "reason": None}
    started = time.monotonic()
    scored = None
    try:
        allowed = f"at most {text.held()}, the tokens to predict in the longest document that is scored"
        require(length <= text.held(), "evaluation.lengths", length, allowed)
        scored = _score_documents(model_at(length), parameters, text, length, stride, config)
    except InvalidInput as error:
        row |= {"status": "undefined", "reason": str(error)}
    except (FloatingPointError, MemoryError, jax.errors.JaxRuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        row |= {"status": "failed", "reason": reason, "again": not isinstance(error, FloatingPointError)}
    else:
        row |= summarize(scored.nats, text.byte_lengths, config.resamples)
    return row | {"seconds": time.monotonic() - started}, scored


def context_gain(
    model_at: ModelAt, parameters: Any, text: Text, longest: int, config: EvaluationConfig
) -> dict[str, Any] | None:
    """Loss on the same final tokens as the context before and under them grows by doubling up to `longest` tokens.

    The tokens end at multiples of the longest configured length that a document holds, whatever `longest` is: models
    that reach less far are scored on the same ones. A context under which the loss is not finite has no point. None
    where `longest` is shorter than the final tokens.
    """
    if longest < config.final_tokens:
        return None
    contexts = [longest]
    while contexts[-1] // 2 >= config.final_tokens:
        contexts.append(contexts[-1] // 2)
    every = max(length for length in config.lengths if length <= text.held())
    groups: dict[int, list[Window]] = {context: [] for context in contexts}
    for document, ids in enumerate(text.tokens):
        found = final_windows(document, len(ids) - 1, tuple(contexts), config.final_tokens, every)
        for context, more in found.items():
            groups[context] += more
    points = []
    for context in sorted(groups):
        windows = groups[context]
        nats = score_windows(model_at(context), parameters, text.tokens, windows, context, config.batch_tokens)
        if not all(np.isfinite(window).all() for window in nats):
            continue
        lengths = [text.byte_lengths[w.document][w.scored : w.stop] for w in windows]
        by_document: dict[int, list[int]] = {}
        for index, window in enumerate(windows):
            by_document.setdefault(window.document, []).append(index)
        summary = summarize(
            [np.concatenate([nats[i] for i in chosen]) for chosen in by_document.values()],
            [np.concatenate([lengths[i] for i in chosen]) for chosen in by_document.values()],
            config.resamples,
        )
        points.append(
            {
                "context": context,
                **{k: summary[k] for k in ("nats_per_token", "bits_per_byte", "low", "high", "tokens")},
            }
        )
    return {"final_tokens": config.final_tokens, "points": points}


def _score_documents(
    model: ModelConfig, parameters: Any, text: Text, length: int, stride: int, config: EvaluationConfig
) -> "Scored":
    """Every target of every document, scored by windows of `length` that move on by `stride`."""
    model.require_length("length", length)
    windows: list[Window] = []
    for document, ids in enumerate(text.tokens):
        windows += sliding_windows(document, len(ids) - 1, length, stride)
    scores = score_windows(model, parameters, text.tokens, windows, length, config.batch_tokens)
    nats = [np.full(len(ids) - 1, np.nan, np.float32) for ids in text.tokens]
    positions = [np.zeros(len(ids) - 1, np.int64) for ids in text.tokens]
    for window, score in zip(windows, scores, strict=True):
        nats[window.document][window.scored : window.stop] = score
        positions[window.document][window.scored : window.stop] = np.arange(window.scored, window.stop) - window.start
    _require_finite(nats)
    return Scored(nats, positions)


def _require_finite(nats: Sequence[np.ndarray]) -> None:
    bad = sum(int((~np.isfinite(document)).sum()) for document in nats)
    if bad:
        raise FloatingPointError(f"the loss of {bad} tokens is not finite")

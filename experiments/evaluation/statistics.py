"""From nats per token to the numbers of a table: token-weighted means, bits per byte, intervals, buckets."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def bits_per_byte(nats: float, count: int) -> float:
    """Nats summed over tokens as bits per byte of the text that they cover; NaN where they cover none."""
    return nats / math.log(2) / count if count else math.nan


def summarize(nats: Sequence[np.ndarray], byte_lengths: Sequence[np.ndarray], resamples: int) -> dict[str, Any]:
    """Token-weighted loss over documents, in three units, with a bootstrap interval over documents.

    nats, byte_lengths: per document, one number a scored token. low, high: the 2.5th and 97.5th percentile of bits per
    byte when documents are drawn with replacement; None with a single document, where that says nothing.
    """
    nats_D = np.array([document.sum(dtype=np.float64) for document in nats])
    tokens_D = np.array([len(document) for document in nats])
    bytes_D = np.array([document.sum(dtype=np.int64) for document in byte_lengths])
    per_token = nats_D.sum() / tokens_D.sum()
    low, high = interval(nats_D, bytes_D, resamples)
    return {
        "nats_per_token": per_token,
        "perplexity": math.exp(min(per_token, 700.0)),
        "bits_per_byte": bits_per_byte(nats_D.sum(), int(bytes_D.sum())),
        "low": low,
        "high": high,
        "tokens": int(tokens_D.sum()),
        "bytes": int(bytes_D.sum()),
    }


def interval(nats_D: np.ndarray, bytes_D: np.ndarray, resamples: int) -> tuple[float | None, float | None]:
    """The 95 % percentile bootstrap interval over documents of bits per byte (Efron 1979); fixed seed."""
    documents = len(nats_D)
    if documents < 2:
        return None, None
    draws = np.random.default_rng(0).integers(0, documents, (resamples, documents))
    means = nats_D[draws].sum(axis=1) / np.log(2) / np.maximum(bytes_D[draws].sum(axis=1), 1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def log_buckets(length: int, per_octave: int = 2, first: int = 16) -> list[tuple[int, int]]:
    """Ranges [from, to) of positions that cover 0 … length-1: the `first` together (a position has one token a window,
    too few to tell anything), then `per_octave` ranges to a doubling."""
    edges = {0, length}
    edge = float(first)
    while edge < length:
        edges.add(int(edge))
        edge *= 2 ** (1 / per_octave)
    ordered = sorted(edges)
    return list(itertools.pairwise(ordered))


def by_position(
    nats: Sequence[np.ndarray], byte_lengths: Sequence[np.ndarray], starts: Sequence[np.ndarray], length: int
) -> list[dict[str, Any]]:
    """Loss in log-spaced buckets of the position in the window; `starts` holds each token's position."""
    nats_N, bytes_N, position_N = (np.concatenate(list(part)) for part in (nats, byte_lengths, starts))
    rows = []
    for low, high in log_buckets(length):
        inside = (position_N >= low) & (position_N < high)
        tokens = int(inside.sum())
        if tokens:
            total = float(nats_N[inside].sum(dtype=np.float64))
            rows.append(
                {
                    "from": low,
                    "to": high,
                    "nats_per_token": total / tokens,
                    "bits_per_byte": bits_per_byte(total, int(bytes_N[inside].sum())),
                    "tokens": tokens,
                }
            )
    return rows

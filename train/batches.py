"""Batches as a pure function of (seed, step): any number of hosts, any length, no state but the step.

Rows are fixed by the store, the length and the packing; what a row holds is found by index arrays, so that no token is
copied before it is needed. Rows are drawn in an order shuffled anew every epoch.
"""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import grain
import numpy as np

from models.errors import invalid, require, require_choice
from train.store import TokenStore

Batch = dict[str, np.ndarray]

# Batches prepared ahead, and threads that prepare them; reading is short beside any step, so both are small.
AHEAD = 8
THREADS = 2


class Packing(Protocol):
    """How a store's tokens become rows of a length."""

    rows: int

    def gather(self, row_B: np.ndarray) -> Batch:
        """The batch that holds the rows of these indices, as `Batches` describes it."""


class Windows:
    """Row r reads tokens rL to rL + L of the concatenated documents and predicts the next of each.

    A window crosses document boundaries and is one document to the model. The last window is moved back to end with
    the last token, and what other windows already score in it has weight 0: every token but the very first is scored
    once.
    """

    def __init__(self, store: TokenStore, length: int):
        self.store = store
        self.length = length
        targets = store.token_count - 1
        if targets < length:
            raise invalid(
                "train.length",
                length,
                f'at most {targets} with data.packing = "windows", as the text has {store.token_count} tokens; '
                '"documents" pads shorter text',
            )
        self.rows = -(-targets // length)
        self._last_start = targets - length

    def gather(self, row_B: np.ndarray) -> Batch:
        start_B = np.minimum(row_B.astype(np.int64) * self.length, self._last_start)
        index_BxL = start_B[:, None] + np.arange(self.length)
        scored_BxL = index_BxL >= row_B[:, None] * self.length
        return {
            "tokens": self.store.tokens[index_BxL].astype(np.int32),
            "targets": self.store.tokens[index_BxL + 1].astype(np.int32),
            "weights": scored_BxL.astype(np.float32),
            "bytes": np.where(scored_BxL, self.store.byte_lengths[index_BxL + 1], 0).astype(np.int32),
        }


class Documents:
    """Rows hold whole documents, or pieces of those longer than a row; no piece predicts a token of another.

    A document of n tokens makes n - 1 predictions, which are cut every `length`; positions restart at each piece. Full
    pieces are rows by themselves; the shorter ones share rows, longest first, each where it leaves the least room
    (best-fit decreasing). What is left of a row is padding: document -1, weight 0, the token 0.
    """

    def __init__(self, store: TokenStore, length: int):
        self.store = store
        self.length = length
        piece_start, piece_length = cut(store.document_starts, length)
        row = best_fit(piece_length, length)
        order = np.argsort(row, kind="stable")
        self.rows = int(row.max()) + 1
        self._piece_start = piece_start[order]
        self._piece_length = piece_length[order]
        self._row_start = np.searchsorted(row[order], np.arange(self.rows + 1))

    def gather(self, row_B: np.ndarray) -> Batch:
        shape = (len(row_B), self.length)
        index, position = np.zeros(shape, np.int64), np.zeros(shape, np.int32)
        document = np.full(shape, -1, np.int32)
        for i, row in enumerate(row_B):
            pieces = slice(self._row_start[row], self._row_start[row + 1])
            lengths = self._piece_length[pieces]
            used = lengths.sum()
            begins = np.cumsum(lengths) - lengths
            position[i, :used] = np.arange(used) - np.repeat(begins, lengths)
            index[i, :used] = np.repeat(self._piece_start[pieces], lengths) + position[i, :used]
            document[i, :used] = np.repeat(np.arange(len(lengths)), lengths)
        real = document >= 0
        return {
            "tokens": np.where(real, self.store.tokens[index], 0).astype(np.int32),
            "targets": np.where(real, self.store.tokens[index + 1], 0).astype(np.int32),
            "weights": real.astype(np.float32),
            "bytes": np.where(real, self.store.byte_lengths[index + 1], 0).astype(np.int32),
            "position": position,
            "document": document,
        }


PACKINGS: dict[str, Callable[[TokenStore, int], Packing]] = {"windows": Windows, "documents": Documents}


def cut(document_starts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """First input token and number of predictions of every piece, int64 [P] each, given the int64 [D + 1] starts."""
    predictions_D = np.diff(document_starts) - 1
    pieces_D = -(-predictions_D // length)
    document_P = np.repeat(np.arange(len(predictions_D)), pieces_D)
    nth_P = np.arange(len(document_P)) - np.repeat(np.cumsum(pieces_D) - pieces_D, pieces_D)
    piece_length = np.minimum(predictions_D[document_P] - nth_P * length, length)
    return document_starts[document_P] + nth_P * length, piece_length


def best_fit(piece_length: np.ndarray, length: int) -> np.ndarray:
    """The row of every piece, int64 [P]; pieces of a row sum to at most `length` (best-fit decreasing).

    Room left is a whole number below `length`, so open rows are kept in one stack per room, and a bit per room that
    has a row makes the least sufficient room one arithmetic step away.
    """
    order = np.argsort(-piece_length, kind="stable")
    row = np.empty(len(piece_length), np.int64)
    full = int((piece_length == length).sum())
    row[order[:full]] = np.arange(full)
    rows = full
    open_rows: dict[int, list[int]] = {}
    rooms = 0
    for piece in order[full:].tolist():
        size = int(piece_length[piece])
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            chosen = open_rows[room].pop()
            if not open_rows[room]:
                rooms &= ~(1 << room)
        else:
            room, chosen = length, rows
            rows += 1
        row[piece] = chosen
        if room > size:
            open_rows.setdefault(room - size, []).append(chosen)
            rooms |= 1 << (room - size)
    return row


class Batches:
    """This host's share of every global batch; `batches[step]` depends on nothing but the arguments below and `step`.

    All hosts' shares together are the global batch, the same rows for any number of hosts. A batch is a dictionary of
    NumPy arrays, with b = batch_size / host_count and L = length:

    tokens: int32 [b, L], the inputs.
    targets: int32 [b, L], the token after each input.
    weights: float32 [b, L], 1 where the target is scored, else 0. In an epoch every token is scored once: but the very
      first in "windows", but those that open a document in "documents".
    bytes: int32 [b, L], UTF-8 bytes of each scored target, 0 where none is scored.
    position, document: int32 [b, L], in "documents" alone (-1 marks padding). In "windows" every row is one document,
      at positions 0 … L - 1, so they are left out.

    Raises InvalidInput where the fields do not fit each other or the store.
    """

    def __init__(
        self,
        store: TokenStore,
        *,
        length: int,
        batch_size: int,
        packing: str,
        seed: int,
        host_index: int = 0,
        host_count: int = 1,
    ):
        require_choice("data.packing", packing, PACKINGS)
        require(length >= 1, "train.length", length, "at least 1")
        require(
            batch_size >= 1 and batch_size % host_count == 0,
            "train.batch_size",
            batch_size,
            f"a positive multiple of the number of hosts, {host_count}",
        )
        require(0 <= host_index < host_count, "host_index", host_index, f"at least 0 and below {host_count}")
        require(0 <= seed < 2**32, "seed", seed, "at least 0 and below 4294967296")
        self._packing = PACKINGS[packing](store, length)
        self.rows_per_epoch = self._packing.rows
        self._rows = (
            grain.MapDataset.range(self.rows_per_epoch)
            .seed(seed)
            .shuffle()
            .repeat()[host_index::host_count]
            .batch(batch_size // host_count)
        )

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        return self._packing.gather(self._rows[int(step)])

    def iterate(self, start_step: int = 0) -> Generator[Batch]:
        """Batches from `start_step` on, without end; threads prepare them ahead until the iterator is closed."""
        threads = ThreadPoolExecutor(THREADS, thread_name_prefix="batches")
        try:
            ahead = deque(threads.submit(self.__getitem__, start_step + i) for i in range(AHEAD))
            step = start_step + AHEAD
            while True:
                ahead.append(threads.submit(self.__getitem__, step))
                step += 1
                yield ahead.popleft().result()
        finally:
            threads.shutdown(wait=True, cancel_futures=True)

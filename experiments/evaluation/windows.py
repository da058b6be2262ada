"""Which tokens are read to score which: non-overlapping and sliding windows over one document."""

from typing import NamedTuple


class Window(NamedTuple):
    """Inputs start … stop-1 of a document are read; the targets of inputs scored … stop-1 (the next tokens) count."""

    document: int
    start: int
    scored: int
    stop: int


def sliding_windows(document: int, targets: int, length: int, stride: int) -> list[Window]:
    """Windows of at most `length` inputs that score every one of `targets` targets exactly once.

    stride = length: non-overlapping windows. A smaller stride: the first window scores all it reads, each later one
    moves on by `stride` and scores only its last `stride` targets, so that these see at least length - stride tokens
    before them. The last window is moved back to end with the document: it is full wherever the document allows.
    """
    if stride == length:
        return [Window(document, start, start, min(start + length, targets)) for start in range(0, targets, length)]
    windows = []
    scored = 0
    while scored < targets:
        stop = min(length if scored == 0 else scored + stride, targets)
        windows.append(Window(document, max(0, stop - length), scored, stop))
        scored = stop
    return windows


def final_windows(
    document: int, targets: int, contexts: tuple[int, ...], final: int, every: int
) -> dict[int, list[Window]]:
    """Windows that score the same `final` targets with more and more context, by length of the context.

    Every full stretch of `every` tokens in the document, at least max(contexts), gives one window to each context.
    """
    stops = range(every, targets + 1, every)
    return {length: [Window(document, stop - length, stop - final, stop) for stop in stops] for length in contexts}

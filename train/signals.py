"""Signals that ask a process to stop."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handled_by(
    handle: Callable[[int, FrameType | None], None], numbers: Sequence[signal.Signals] = STOP
) -> Iterator[None]:
    """Within it these signals call `handle`, and afterwards what they called before.

    A SIGHUP that is ignored, as under nohup, stays ignored. In another thread than the main one signals are somebody
    else's, and nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    taken = [number for number in numbers if number != signal.SIGHUP or not ignored]
    before = {number: signal.signal(number, handle) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

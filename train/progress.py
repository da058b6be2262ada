"""What a person sees of a run while it trains: a live bar on a terminal, plain lines elsewhere."""

import errno
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import jax
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

# Dense bfloat16 FLOP/s of one device, by the beginning of its device_kind, from the makers' data sheets.
PEAK_FLOPS = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
    "NVIDIA H200 NVL": 835e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
}


def peak_flops(device: jax.Device) -> float | None:
    """The device's peak in bfloat16 FLOP/s, or None where it is not known (a CPU, say)."""
    kinds = [kind for kind in PEAK_FLOPS if device.device_kind.startswith(kind)]
    return PEAK_FLOPS[max(kinds, key=len)] if kinds else None


class Progress:
    """Shows the progress of a run of `total_steps` steps that goes on from `first_step`.

    Elsewhere than on a terminal it prints one line at most every `seconds`, and always the first and the last step's.
    `clock` gives seconds. Used as a context manager.
    """

    def __init__(
        self,
        total_steps: int,
        first_step: int = 0,
        *,
        seconds: float = 5.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total = total_steps
        self._seconds = seconds
        self._stream = stream or sys.stdout
        self._clock = clock
        self._first_step = first_step
        self._start: tuple[int, float] | None = None
        self._printed: float | None = None
        console = Console(file=self._stream)
        self._bar: Bar | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            # A few refreshes a second: the bar must not take a core from training.
            columns = (BarColumn(bar_width=24), TextColumn("{task.description}", markup=False))
            self._bar = Bar(*columns, console=console, refresh_per_second=2)

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._task = self._bar.add_task("compiling", total=self._total, completed=self._first_step)
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """`step` steps are done. Shows those of loss, bits_per_byte, tokens_per_second and
        model_flop_utilisation (a share of 1) that `metrics` holds, and the time left at the pace so far."""
        now = self._clock()
        if self._start is None:
            # From the first finished step, so that compiling does not count into the pace.
            self._start = (step, now)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=self._line(step, metrics, now))
        elif self._printed is None or now - self._printed >= self._seconds or step >= self._total:
            self._printed = now
            self._print(self._line(step, metrics, now))

    def note(self, line: str) -> None:
        """Prints a line beside the progress."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            self._print(line)

    def _print(self, line: str) -> None:
        try:
            print(line, file=self._stream, flush=True)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # the terminal was closed: metrics.jsonl goes on
                raise

    def _line(self, step: int, metrics: Mapping[str, float | None], now: float) -> str:
        parts = [f"step {step:>{len(str(self._total))}}/{self._total}"]
        for name, text in _SHOWN.items():
            if metrics.get(name) is not None:
                parts.append(text.format(metrics[name]))
        left = self._time_left(step, now)
        if left is not None and step < self._total:
            parts.append(f"{duration(left)} left")
        return " · ".join(parts)

    def _time_left(self, step: int, now: float) -> float | None:
        assert self._start is not None
        first, since = self._start
        if step <= first:
            return None
        return (now - since) / (step - first) * (self._total - step)


_SHOWN: dict[str, Any] = {
    "loss": "loss {:.4f}",
    "bits_per_byte": "{:.4f} bits/byte",
    "tokens_per_second": "{:,.0f} tokens/s",
    "model_flop_utilisation": "{:.1%} of peak FLOP/s",
}


def duration(seconds: float) -> str:
    """Seconds as a person reads them: "42 s", "3:07", "2:05:09"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

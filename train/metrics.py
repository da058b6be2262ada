"""A run's metrics: JSON lines as the truth, TensorBoard beside them as a view."""

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.errors import InvalidInput
from train.files import write_whole

METRICS_FILE = "metrics.jsonl"


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a metrics file, oldest first, each a dict with its `step`.

    A last line torn by a killed writer is left out. Numbers that were not finite are None. Raises InvalidInput naming
    the file and line where any other line is damaged, and FileNotFoundError where there is no file.
    """
    lines = Path(path).read_bytes().split(b"\n")
    last = max((i for i, line in enumerate(lines) if line.strip()), default=-1)
    records = []
    for i, line in enumerate(lines[: last + 1]):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode())
        except ValueError:
            if i == last:
                break
            raise InvalidInput(f"{path}, line {i + 1} is damaged: it is not JSON") from None
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            raise InvalidInput(f"{path}, line {i + 1} is damaged: it is not a dictionary with a step")
        records.append(record)
    return records


def numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as numbers, where a vector is a list of them."""
    return {name: value.tolist() if getattr(value, "ndim", 0) else float(value) for name, value in metrics.items()}


class MetricsWriter:
    """Appends metrics to `folder`/metrics.jsonl, each line whole and handed to the system before `write` returns.

    Opening it makes the file continuous: lines of steps after `last_step`, the step that the run goes on from, are
    removed, and so is a torn last line; either the old file or the new one is there at any moment. None starts anew.
    TensorBoard files go to `folder`/tensorboard. One process writes.
    """

    def __init__(self, folder: str | os.PathLike[str], last_step: int | None = None):
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._open(last_step)

    def rewind(self, last_step: int) -> None:
        """Removes the lines of steps after `last_step`, for a run that goes back to it."""
        self.close()
        self._open(last_step)

    def _open(self, last_step: int | None) -> None:
        self._last_step = last_step
        path = self._folder / METRICS_FILE
        kept = []
        if last_step is not None and path.exists():
            kept = [record for record in read_metrics(path) if record["step"] <= last_step]
        write_whole(path, b"".join(map(_line, kept)))
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed by close)
        self._tensorboard: Any = None

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Adds one line of scalars and lists of them at `step`; TensorBoard gets the scalars.

        Numbers that are not finite become null, which JSON can hold.
        """
        if "step" in metrics:
            raise ValueError("a metric cannot be called step")
        values = {name: _plain(value) for name, value in metrics.items()}
        line = _line({"step": int(step), **values})
        if self._file.write(line) != len(line):  # a disk that is nearly full takes a part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder / METRICS_FILE))
        if self._tensorboard is None:
            # Imported here because it takes long and readers of metrics do not need it.
            from tensorboardX import SummaryWriter

            purge = None if self._last_step is None else self._last_step + 1
            self._tensorboard = SummaryWriter(str(self._folder / "tensorboard"), purge_step=purge)
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self._tensorboard.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes out what TensorBoard still holds back and closes both."""
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, allow_nan=False).encode() + b"\n"


def _plain(value: Any) -> Any:
    """A Python number, string or None from a scalar of any library; a list of these from a list."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    item = value.item() if hasattr(value, "item") else value
    if isinstance(item, float) and not math.isfinite(item):
        return None
    return item

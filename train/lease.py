"""Who owns a run folder: two writers on one folder would destroy each other's checkpoints, so the second refuses.

The lock is the kernel's (`flock`), held through an open file. It vanishes with the process however that ends, so
nothing stale is left after kill -9; the text in the lock file only says who holds it.
"""

import datetime
import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType

import jax
import numpy as np
from jax.experimental import multihost_utils

from models.errors import InvalidInput

LOCK_FILE = "owner.lock"
# Who only asks whether a folder is held (`is_held`) has its lock for an instant; it is not refused for that.
TRIES, PAUSE_SECONDS = 20, 0.005


class InUse(InvalidInput):
    """The run folder belongs to another process."""


def is_held(folder: Path) -> bool:
    """Whether a process, on whatever host, owns the run folder now."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)  # which gives the lock back
    return False


class Lease:
    """Exclusive ownership of a run folder for the length of a `with` block. The folder is created if need be.

    In a job of several processes the first takes the lock for all of them, and all refuse together.
    Raises InUse naming the owner where the folder is in use, and where its file system offers no locks.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._descriptor: int | None = None

    def __enter__(self) -> "Lease":
        # is_initialized, unlike process_count, starts no accelerator: a sweep's parent process may hold leases too.
        together = jax.distributed.is_initialized() and jax.process_count() > 1
        refusal = None
        if not together or jax.process_index() == 0:
            refusal = self._take()
        if together:
            refused = bool(multihost_utils.broadcast_one_to_all(np.int32(refusal is not None)))
            if refused and refusal is None:
                refusal = self._in_use()
        if refusal is not None:
            raise InUse(refusal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            # The file stays: removing it would let a third process lock a new one while a second waits on the old.
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def _take(self) -> str | None:
        """Locks the folder; returns why not, where that fails."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        for left in reversed(range(TRIES)):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                held = error.errno in (errno.EWOULDBLOCK, errno.EACCES)
                if not held or not left:
                    os.close(descriptor)
                    why = f"run folder {self.folder} cannot be locked against a second writer: {error.strerror}"
                    return self._in_use() if held else why
                time.sleep(PAUSE_SECONDS)
        self._descriptor = descriptor
        owner = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        os.ftruncate(descriptor, 0)
        os.write(descriptor, (json.dumps(owner) + "\n").encode())
        return None

    def _in_use(self) -> str:
        try:
            owner = json.loads((self.folder / LOCK_FILE).read_text())
            who = f"process {owner['process']} on host {owner['host']} since {owner['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            who = "another process"  # which has the lock but has not written its name yet
        return f"run folder {self.folder} is in use by {who}"

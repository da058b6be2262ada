"""A folder shared by all runs, whose entries are built once and are either complete or absent.

Downloads, trained tokenizers and token stores live here. Several processes may ask for the same entry at the same
moment: one builds it, the others wait and use it. A process killed while building leaves only a temporary folder, which
nobody reads and the next builder removes.
"""

import errno
import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import InvalidInput
from train.files import flush

# What a file system without locks, as some across a network are, answers to a wish for one.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def cache_folder() -> Path:
    """LONGREACH_CACHE if set, else `longreach` in the XDG cache folder (by default `~/.cache`). It need not exist."""
    own = os.environ.get("LONGREACH_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    xdg = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(xdg).expanduser().absolute() / "longreach"


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Returns `folder`, after `build(temporary)` has filled it if it did not exist.

    `build` writes into an empty folder beside `folder`, which is flushed to the disk and renamed only when `build`
    returns; so `folder` exists with everything in it or not at all, whatever is killed when. Safe under concurrent
    processes and threads. Whatever `build` raises passes through and leaves nothing behind.

    Raises InvalidInput where the cache cannot be written (no permission, no space left) or locked.
    """
    folder = Path(folder)
    if folder.exists():
        return folder
    with _said_in_one_line(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(folder):
            if folder.exists():
                return folder
            temporary = folder.parent / f".{folder.name}.building"
            if temporary.exists():
                # Only the holder of the lock builds, so whoever left this is dead.
                shutil.rmtree(temporary)
            try:
                temporary.mkdir()
                build(temporary)
                _flush_all(temporary)
                temporary.rename(folder)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            flush(folder.parent)
    return folder


@contextmanager
def _said_in_one_line(folder: Path) -> Iterator[None]:
    """Turns what the machine refuses about `folder` into one line that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = "no space is left on its disk"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST) and (
            error.filename is not None and Path(os.fsdecode(error.filename)) in (folder, *folder.parents, _lock(folder))
        ):
            reason = (error.strerror or str(error)).lower()
        else:
            raise
        raise _refusal(folder, reason) from error


def _refusal(folder: Path, reason: str) -> InvalidInput:
    return InvalidInput(f"the cache cannot hold {folder}: {reason}; LONGREACH_CACHE may name another folder")


def _lock(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.lock"


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Holds the lock beside `folder`; the kernel releases it when its holder dies, so it is never stale."""
    with _lock(folder).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that prepares {folder}", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise _refusal(folder, f"its file system offers no locks ({error.strerror})") from error
        yield


def _flush_all(folder: Path) -> None:
    """Puts every file and folder below `folder` on the disk, so that the rename cannot get there before them."""
    for parent, _, files in os.walk(folder):
        for name in files:
            flush(Path(parent) / name)
        flush(Path(parent))

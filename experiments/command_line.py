"""What the commands share: arguments, overrides, one line for a user's mistake, exit statuses."""

import argparse
import errno
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from models.errors import InvalidInput
from train.allocator import keep_freed_memory
from train.signals import handled_by

OVERRIDES_HELP = (
    "Any field of the configuration can be set: --config.train.steps=500 --config.model.position.name=alibi "
    "--config.model.position.scaling.factor=8.0. An unknown field is refused with the fields that exist."
)


class Parser(argparse.ArgumentParser):
    """An argument parser whose left-over `--config.PATH=VALUE` arguments are overrides of a configuration."""

    def __init__(self, command: str, description: str):
        super().__init__(
            prog=f"python -m experiments.{command}", description=description, epilog=OVERRIDES_HELP, allow_abbrev=False
        )

    def parse(self, arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, dict[str, str]]:
        """The declared arguments, and overrides by dotted path. Anything else is a usage error: exit status 2."""
        known, rest = self.parse_known_args(arguments)
        overrides: dict[str, str] = {}
        while rest:
            option = rest.pop(0)
            if not option.startswith("--config."):
                self.error(f"unrecognized argument: {option}")
            path, equals, value = option.removeprefix("--config.").partition("=")
            if not equals:
                if not rest:
                    self.error(f"{option} needs a value: {option}=VALUE")
                value = rest.pop(0)
            overrides[path] = value
        return known, overrides


# What the system may refuse about a file or folder that the user named: a mistake, not a defect.
REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.ENAMETOOLONG, errno.ELOOP),
)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run_command(main: Callable[[], None]) -> None:
    """Runs a command's main function; a mistake of the user's becomes one line on standard error and exit status 2.

    A full disk exits with 1, a second ctrl-C with 130; a defect keeps its traceback.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    keep_freed_memory()
    _leave_aftermath_unsaid()
    try:
        main()
    except InvalidInput as error:
        fail(str(error), 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno in FULL:
            fail(f"the disk is full: {error.filename or error}; what was saved before is intact", 1)
        if error.errno not in REFUSED or error.filename is None:
            raise
        fail(f"{error.filename}: {error.strerror}", 2)
    except KeyboardInterrupt:
        fail("interrupted", 130)


def _leave_aftermath_unsaid() -> None:
    """A save or a line that cannot be written is said once; what libraries still have under way then, in threads and
    tasks of their own, would add pages of tracebacks."""

    def follows(error: BaseException | None) -> bool:
        return str(error) == "Event loop is closed" or (isinstance(error, OSError) and error.errno in FULL)

    in_callback, in_thread = sys.unraisablehook, threading.excepthook
    sys.unraisablehook = lambda ended: None if follows(ended.exc_value) else in_callback(ended)
    threading.excepthook = lambda ended: None if follows(ended.exc_value) else in_thread(ended)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")
    # Without the cache of compiled programs a start takes longer, and that is all.
    warnings.filterwarnings("ignore", message="Error (writing|reading) persistent compilation cache entry")


class Stopped(KeyboardInterrupt):
    """The command was asked to stop where nothing has to be saved first."""


@contextmanager
def stop_requests(handle: Callable[[int, FrameType | None], None] | None = None) -> Iterator[None]:
    """Within it ctrl-C, SIGTERM and SIGHUP (a terminal that closes) call `handle`; without one they raise Stopped.

    A SIGHUP that is ignored, as under nohup, stays ignored.
    """
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def called(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            # The terminal is gone, and a line for it would be an error.
            for descriptor in terminals:
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        if handle is None:
            raise Stopped
        handle(number, frame)

    with handled_by(called):
        yield


def fail(message: str, status: int) -> NoReturn:
    """Ends the command with one line on standard error."""
    print(f"longreach: {message}", file=sys.stderr)
    sys.exit(status)


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that a second start does not compile again."""
    import jax

    from train.cache import cache_folder

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

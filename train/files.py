"""Files that are written whole: at any moment, and after a crash, a path holds the old content or the new one."""

import json
import os
import uuid
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: str | bytes) -> None:
    """Replaces what `path` holds in one step, on the disk when it returns; its folder is made where it is missing.

    Text is written as UTF-8. Raises OSError (disk full, say) with the old file untouched and no temporary file left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replaces what `path` holds by a JSON value, as `write_whole` does; TypeError for what JSON cannot hold."""
    write_whole(path, json.dumps(value, indent=1) + "\n")


def flush(path: Path) -> None:
    """Puts a file on the disk, or the names in a folder, so that they survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The integrity of a checkpoint on disk: a sha256 of every file, written before the checkpoint counts as finished.

Orbax does not checksum what it stores, so a flipped bit would be restored as a weight. The manifest is written while
the checkpoint still lies in its temporary folder, whose renaming finishes both at once: a process killed at any moment
leaves a checkpoint with its manifest, or none. The two files that Orbax adds beside the items while renaming hold only
time stamps and names of handlers; no restore here reads them.
"""

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from train.files import write_json

MANIFEST = "sha256.json"


def step_folders(folder: Path) -> list[int]:
    """The steps that have a checkpoint of any condition in `folder`, ascending; temporary folders have none."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())


def saved_steps(folder: Path) -> list[int]:
    """The steps in `folder` whose manifest and files are all there, in full size, ascending. Nothing is hashed."""
    folder = Path(folder)
    return [step for step in step_folders(folder) if not damage(folder / str(step), hashes=False)]


def write_manifest(checkpoint: Path) -> None:
    """Hashes every file in the items (the sub-folders) of a checkpoint and writes the manifest into it."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.parent != checkpoint)
    entries = {
        file.relative_to(checkpoint).as_posix(): {"bytes": file.stat().st_size, "sha256": digest}
        for file, digest in zip(files, _hashes(files), strict=True)
    }
    write_json(checkpoint / MANIFEST, entries)


def damage(checkpoint: Path, items: Collection[str] | None = None, hashes: bool = True) -> str | None:
    """What is wrong with a checkpoint, in words that name the first bad file, or None.

    Only the files of `items` (sub-folders; None for all) are looked at: sizes first, then, if `hashes`, the contents.
    """
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text())
        entries = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest.items()}
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is unreadable"
    present = {name.partition("/")[0] for name in entries}
    if not present.issuperset(items or ()) or not present:
        return f"{MANIFEST} is incomplete"
    names = [name for name in entries if items is None or name.partition("/")[0] in items]
    for name in names:
        path, size = checkpoint / name, entries[name][0]
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    if hashes:
        try:
            digests = _hashes([checkpoint / name for name in names])
        except OSError as error:
            return f"{Path(error.filename or checkpoint).name} cannot be read: {error.strerror}"
        for name, digest in zip(names, digests, strict=True):
            if digest != entries[name][1]:
                return f"{name} differs from its hash"
    return None


def _hashes(files: Sequence[Path]) -> list[str]:
    """Hashing releases the interpreter's lock, so a few threads read and hash at the speed of the disk."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(_hash, files))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

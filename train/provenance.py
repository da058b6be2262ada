"""Where a result came from: the commit, the versions and the devices; and the hash that names a configuration.

`provenance` is written into every run folder and printed under every report, so it names no host, user or path.
"""

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tokenizers", "sentencepiece", "numpy")
ROOMS = ("models", "train", "experiments")


def provenance() -> dict[str, Any]:
    """The commit, versions, devices and date of this process, as JSON values.

    `commit` ends in "+changes" where the packages of the checkout differ from it, and is None where the source lies in
    no git checkout of its own or git is not installed. A package that is not installed has the version None.
    """
    device = jax.devices()[0]
    return {
        "commit": own_commit(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "platform": device.platform,
        "device_kind": device.device_kind,
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def continued(file: Path, step: int) -> dict[str, Any]:
    """The provenance of this process, as one that takes over at `step` from those that `file` tells of.

    `from_step` is that step, and `earlier` a list of the provenances of the processes before, the first one first;
    it is empty at step 0, where nothing of theirs is left.
    """
    now = {**provenance(), "from_step": step}
    if step == 0:
        return now | {"earlier": []}
    before = json.loads(file.read_text())
    return now | {"earlier": [*before.get("earlier", []), {key: before.get(key) for key in now}]}


def own_commit() -> str | None:
    """The commit of the code that runs, as `source_commit` says it."""
    return source_commit(Path(__file__).resolve().parents[1])


def source_commit(source: Path) -> str | None:
    """The commit checked out at `source`, with "+changes" if its packages were edited or extended; None outside git."""
    answer = _git(source, "rev-parse", "HEAD", "--show-toplevel")
    if answer is None:
        return None
    commit, root = answer.splitlines()
    if Path(root).resolve() != source.resolve():
        return None  # installed inside somebody else's checkout, whose commit says nothing about this code
    changes = _git(source, "status", "--porcelain", "--", *(room for room in ROOMS if (source / room).exists()))
    return f"{commit}+changes" if changes else commit


def hash_of(value: Any) -> str:
    """Identifies a JSON value: the first 12 hex digits of the sha256 of its canonical text (sorted keys, no spaces).

    Raises TypeError for what JSON cannot hold. 4 and 4.0 differ; tuples and lists do not.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, or None where it is missing, refuses or hangs. Optional locks stay untaken: sweeps run many."""
    try:
        answer = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()

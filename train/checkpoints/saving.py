"""The checkpoints of one run: saved in the background, hashed, pruned, and restored as one thing.

Parameters, optimizer, data position and metadata are separate items of one Orbax checkpoint, which becomes visible,
with the hashes of its files, by a single rename. Earlier ones go only after that.
"""

import errno
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from models.errors import InvalidInput, require
from train.checkpoints.manifest import saved_steps, step_folders, write_manifest
from train.checkpoints.restoring import (
    DATA,
    ITEMS,
    METADATA,
    OPTIMIZER,
    PARAMETERS,
    check_target,
    newest_undamaged,
    read_arrays,
    read_json,
)

TEMPORARY_MARK = ".orbax-checkpoint-tmp"
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
NAMED_LEAVES = 4


@dataclass(frozen=True)
class CheckpointConfig:
    """How often a run saves, in steps, and how many checkpoints stay on disk."""

    every: int = 200
    keep: int = 2

    def __post_init__(self):
        require(self.every >= 1, "every", self.every, "a number of steps, at least 1")
        require(self.keep >= 1, "keep", self.keep, "a number of checkpoints, at least 1")


@dataclass(frozen=True)
class Restored:
    """A run as it was when `step` steps were done."""

    step: int
    parameters: Any
    optimizer: Any
    data: dict[str, Any]
    metadata: dict[str, Any]


class Checkpoints:
    """The newest `keep` checkpoints of a run in `folder`, which the caller owns (`train.lease.Lease`).

    Every process of a job calls every method. Temporary folders that an earlier process left are removed at the start.
    """

    def __init__(self, folder: Path, keep: int):
        self.folder = Path(folder).absolute()
        self._current: int | None = None  # the step this process last saved or restored
        self._saving: int | None = None
        self._unusable: set[int] = set()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifest),
        )
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        except Exception as error:
            self._raise_clear(error, "cannot be opened")

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except InvalidInput as failure:
            if error is None:
                raise
            print(failure, file=sys.stderr)  # the error that ended the block is the one to be seen

    def save(self, step: int, parameters: Any, optimizer: Any, data: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Starts to save and returns once the arrays are copied, so that the caller may donate them to the next step.

        Waits for the previous save first. Saving the step that was just saved or restored does nothing.

        Raises:
          FloatingPointError: a parameter or an optimizer array is not finite; nothing is saved.
          InvalidInput: the previous save or this one cannot be written (disk full); earlier checkpoints are intact. Or
            `folder` holds a later checkpoint, which only `restore` may declare damaged.
        """
        self.wait()
        if step == self._current:
            return
        _require_finite(step, {PARAMETERS: parameters, OPTIMIZER: optimizer})
        self._remove_unusable()
        later = [other for other in step_folders(self.folder) if other >= step]
        if later:
            raise InvalidInput(
                f"{self.folder} holds a checkpoint of step {later[-1]}; step {step} would not be the newest: "
                "restore the run, or choose another folder"
            )
        self._saving = step
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{
                        PARAMETERS: ocp.args.StandardSave(parameters),
                        OPTIMIZER: ocp.args.StandardSave(optimizer),
                        DATA: ocp.args.JsonSave(data),
                        METADATA: ocp.args.JsonSave(metadata),
                    }
                ),
                force=True,
            )
        except Exception as error:
            self._give_up(error)

    def wait(self) -> None:
        """Waits until the last save is finished. Raises InvalidInput if it cannot be written (disk full)."""
        if self._saving is None:
            return
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            self._give_up(error)
        self._current, self._saving = self._saving, None

    def close(self) -> None:
        """Waits for the last save and releases the threads. Raises what `wait` raises."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def restore(self, abstract_parameters: Any, abstract_optimizer: Any) -> Restored | None:
        """The newest undamaged checkpoint, bit for bit; None where there is none at all.

        The targets are pytrees of jax.ShapeDtypeStruct with shardings, which may be those of another mesh than at the
        time of saving. That a damaged checkpoint is passed over is said in one line on stderr; the next `save` removes
        it.

        Raises InvalidInput where all checkpoints are damaged, and, naming paths, shapes and dtypes, where the
        checkpoint does not fit the targets: nothing is cast, padded or left out.
        """
        self.wait()
        step = newest_undamaged(self.folder, ITEMS)
        if step is None:
            return None
        check_target(self.folder, step, {PARAMETERS: abstract_parameters, OPTIMIZER: abstract_optimizer})
        self._unusable = {other for other in step_folders(self.folder) if other > step}
        self._current = step
        return Restored(
            step,
            read_arrays(self.folder, step, PARAMETERS, abstract_parameters),
            read_arrays(self.folder, step, OPTIMIZER, abstract_optimizer),
            read_json(self.folder, step, DATA),
            read_json(self.folder, step, METADATA),
        )

    def _write_manifest(self) -> None:
        """Called in the saving thread of the first process, when the files are complete and before they are renamed."""
        final = self.folder / str(self._saving)
        temporary = sorted(self.folder.glob(f"{self._saving}{TEMPORARY_MARK}*"))
        write_manifest(final if final.exists() else temporary[-1])

    def _remove_unusable(self) -> None:
        """Removes what `restore` passed over, so that the run may save those steps anew."""
        if self._unusable:
            self._remove([self.folder / str(step) for step in self._unusable])
            self._unusable = set()

    def _remove(self, folders: list[Path]) -> None:
        if jax.process_index() == 0:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("checkpoints removed")
        self._manager.reload()

    def _give_up(self, error: Exception) -> NoReturn:
        """Frees what a failed save has written, forgets the save, and raises."""
        step, self._saving = self._saving, None
        for temporary in self.folder.glob(f"{step}{TEMPORARY_MARK}*"):
            shutil.rmtree(temporary, ignore_errors=True)
        self._manager.reload()
        self._raise_clear(error, f"could not take the checkpoint of step {step}")

    def _raise_clear(self, error: Exception, what: str) -> NoReturn:
        """Raises InvalidInput in place of a full, read-only or forbidden disk, and `error` itself otherwise."""
        reason = _disk_error(error)
        if reason is None:
            raise error
        steps = ", ".join(map(str, saved_steps(self.folder))) or "none"
        raise InvalidInput(f"{self.folder} {what}: {reason}; earlier checkpoints are intact: {steps}") from error


def _require_finite(step: int, trees: dict[str, Any]) -> None:
    """Raises FloatingPointError naming the first arrays that hold NaN or infinity."""
    bad = []
    for item, tree in trees.items():
        finite = jax.device_get(_finite(jax.tree.leaves(tree)))
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
        bad += [
            f"{item}/{jax.tree_util.keystr(path, simple=True, separator='/')}"
            for path, good in zip(paths, finite, strict=True)
            if not good
        ]
    if bad:
        more = f" and {len(bad) - NAMED_LEAVES} more" if len(bad) > NAMED_LEAVES else ""
        raise FloatingPointError(f"step {step} is not saved: NaN or infinity in {', '.join(bad[:NAMED_LEAVES])}{more}")


@jax.jit
def _finite(leaves: list[jax.Array]) -> list[jax.Array]:
    """Whether each array is finite everywhere, as a replicated scalar; integers are."""
    return [jnp.isfinite(leaf).all() if jnp.issubdtype(leaf.dtype, jnp.inexact) else jnp.array(True) for leaf in leaves]


def _disk_error(error: BaseException | None) -> str | None:
    """The reason if the disk refused, also where a library has wrapped the system's error or turned it into text."""
    while error is not None:
        for code in DISK_ERRORS:
            if getattr(error, "errno", None) == code or os.strerror(code) in str(error):
                return os.strerror(code)
        error = error.__cause__ or error.__context__
    return None

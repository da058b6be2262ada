"""From a checkpoint on disk to arrays: the newest undamaged step, and only into a target that it fits.

Orbax by itself casts dtypes silently and restores a shallow model into a deep one, so the saved tree is compared with
the target first, path by path.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from models.errors import InvalidInput
from train.checkpoints.manifest import damage, saved_steps, step_folders

PARAMETERS, OPTIMIZER, DATA, METADATA = ITEMS = ("parameters", "optimizer", "data", "metadata")
NAMED_MISMATCHES = 4

# What goes wrong is raised here in one line; Orbax would print pages of traceback for the same thing before that.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in Path(record.pathname).parts)


def restore_parameters(
    folder: Path, step: int | None = None, abstract_parameters: Any = None
) -> tuple[int, Any, dict[str, Any]]:
    """Restores parameters alone, for evaluation: (step, parameters, metadata). Writes nothing into `folder`.

    Args:
      folder: the folder of the checkpoints, which holds one sub-folder a step.
      step: which one; None for the newest undamaged one.
      abstract_parameters: a pytree of jax.ShapeDtypeStruct, with shardings where arrays shall be spread over devices;
        None for nested dicts with the shapes and dtypes that were saved, on this process's first device.

    Raises InvalidInput naming the folder and its steps where there is no such checkpoint or it is damaged, and naming
    paths, shapes and dtypes where it does not fit `abstract_parameters`.
    """
    folder = Path(folder).absolute()
    items = (PARAMETERS, METADATA)
    if step is None:
        step = newest_undamaged(folder, items)
        if step is None:
            raise InvalidInput(f"{folder} holds no checkpoint")
    else:
        problem = damage(folder / str(step), items) if step in step_folders(folder) else "it does not exist"
        if problem:
            steps = ", ".join(map(str, saved_steps(folder))) or "none"
            raise InvalidInput(f"checkpoint of step {step} in {folder} cannot be used: {problem}; saved steps: {steps}")
    if abstract_parameters is None:
        abstract_parameters = saved_tree(folder, step, PARAMETERS)
    else:
        check_target(folder, step, {PARAMETERS: abstract_parameters})
    return step, read_arrays(folder, step, PARAMETERS, abstract_parameters), read_json(folder, step, METADATA)


def newest_undamaged(folder: Path, items: Sequence[str]) -> int | None:
    """The newest step whose `items` match their hashes; None where `folder` holds no checkpoint at all.

    Passing a damaged one over is said in one line on stderr. In a job of several processes the first decides for all.
    Raises InvalidInput where all are damaged: starting over in silence would throw a run away.
    """
    refusal, chosen = "", -1
    if jax.process_index() == 0:
        problems = []
        for step in reversed(step_folders(folder)):
            problem = damage(folder / str(step), items)
            if problem is None:
                chosen = step
                break
            problems.append(f"step {step} ({problem})")
        if problems and chosen >= 0:
            print(f"damaged checkpoint: {'; '.join(problems)}; step {chosen} is used instead", file=sys.stderr)
        elif problems:
            chosen, refusal = -2, ": " + "; ".join(problems)
    if jax.process_count() > 1:
        chosen = int(multihost_utils.broadcast_one_to_all(np.int32(chosen)))
    if chosen == -2:
        raise InvalidInput(f"every checkpoint in {folder} is damaged{refusal}")
    return chosen if chosen >= 0 else None


def check_target(folder: Path, step: int, targets: dict[str, Any]) -> None:
    """Raises InvalidInput naming the first paths where saved items and their abstract targets differ in any way."""
    problems = []
    for item, target in targets.items():
        saved, expected = _described(saved_tree(folder, step, item)), _described(target)
        for path in sorted(saved.keys() | expected.keys()):
            if path not in saved:
                problems.append(f"{item}/{path} is missing (expected {expected[path]})")
            elif path not in expected:
                problems.append(f"{item}/{path} is unexpected (saved {saved[path]})")
            elif saved[path] != expected[path]:
                problems.append(f"{item}/{path} is saved as {saved[path]}, expected {expected[path]}")
    if problems:
        named = "; ".join(problems[:NAMED_MISMATCHES])
        more = f"; and {len(problems) - NAMED_MISMATCHES} more" if len(problems) > NAMED_MISMATCHES else ""
        raise InvalidInput(f"checkpoint of step {step} in {folder} does not fit: {named}{more}")


def read_arrays(folder: Path, step: int, item: str, target: Any) -> Any:
    """The arrays of one item, in the structure and with the shardings of `target`, which `check_target` has passed."""
    handler = ocp.StandardCheckpointHandler()
    try:
        return handler.restore(folder / str(step) / item, args=ocp.args.StandardRestore(_placed(target)))
    finally:
        handler.close()


def read_json(folder: Path, step: int, item: str) -> dict[str, Any]:
    """The dictionary of one JSON item."""
    handler = ocp.JsonCheckpointHandler()
    try:
        return handler.restore(folder / str(step) / item, args=ocp.args.JsonRestore())
    finally:
        handler.close()


def saved_tree(folder: Path, step: int, item: str) -> Any:
    """The tree of one item as it was saved: jax.ShapeDtypeStruct in nested dicts and lists."""
    handler = ocp.StandardCheckpointHandler()
    try:
        tree = handler.metadata(folder / str(step) / item).tree
    finally:
        handler.close()
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def _placed(target: Any) -> Any:
    """`target` with the first device where a leaf says none: the saved sharding may name devices that are not here."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or here), target
    )


def _described(tree: Any) -> dict[str, str]:
    """Path to "dtype[shape]" of every leaf. Tuples, named tuples and lists look the same in a checkpoint."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"
        for path, leaf in leaves
    }

"""Starting from the parameters of another run instead of drawing them: fine-tuning, extension, recalibration."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from models.errors import InvalidInput, require
from train.checkpoints import restore_parameters
from train.checkpoints.restoring import METADATA, PARAMETERS, newest_undamaged, read_json, saved_tree

RUN_ID = re.compile(r"[0-9a-f]{12}")
NAMED_MISMATCHES = 4


@dataclass(frozen=True)
class InitialConfig:
    """Where a run's parameters come from; its step, its optimizer and its text begin anew in any case.

    run: a finished run with the same tokenizer: the id of one in the same study, or the path of a run folder. Its
      parameters are taken by name: what it holds and this model does not ask for is left out, what this model asks for
      it must hold. None draws them from the seed.
    """

    run: str | None = None

    def __post_init__(self):
        allowed = "the id of a run in the same study, the path of a run folder, or None"
        require(self.run is None or self.run == self.run.strip() != "", "run", self.run, allowed)

    def identity(self) -> str | None:
        """What tells one starting point from another: a run's id, wherever its folder is; else the path."""
        if self.run is None:
            return None
        name = Path(self.run).name
        return name if RUN_ID.fullmatch(name) else self.run

    def folder(self, runs: Path) -> Path:
        """The run folder to start from, for a study whose runs lie in `runs`. Raises ValueError where `run` is None."""
        if self.run is None:
            raise ValueError("the run starts from no other")
        return runs / self.run if RUN_ID.fullmatch(self.run) else Path(self.run).expanduser()


def read_initial(folder: Path, tokenizer_hash: str, wanted: Any, mesh: Mesh) -> Any:
    """The newest parameters of the run in `folder`, as `wanted` asks: a tree of jax.ShapeDtypeStruct with shardings.

    Raises InvalidInput where there is no checkpoint, where it was trained with another tokenizer, or where it lacks a
    parameter or has it in another shape: the first few are named.
    """
    checkpoints = (folder / "checkpoints").absolute()
    step = newest_undamaged(checkpoints, (PARAMETERS, METADATA))
    if step is None:
        raise InvalidInput(f"initial.run: {folder} holds no checkpoint")
    trained_with = read_json(checkpoints, step, METADATA)["tokenizer"]
    if trained_with != tokenizer_hash:
        raise InvalidInput(
            f"initial.run: {folder} was trained with another tokenizer ({trained_with[:12]}) than this run's "
            f"({tokenizer_hash[:12]})"
        )
    saved = saved_tree(checkpoints, step, PARAMETERS)
    asked, everywhere = _by_path(wanted), NamedSharding(mesh, PartitionSpec())
    _require_held(folder, asked, _by_path(saved))

    def place(path: Any, leaf: Any) -> Any:
        known = asked.get(_name(path))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere if known is None else known.sharding)

    # The whole saved tree is read, what is wanted of it straight to its place on the mesh.
    _, parameters, _ = restore_parameters(checkpoints, step, jax.tree_util.tree_map_with_path(place, saved))
    held = _by_path(parameters)
    return jax.tree_util.tree_map_with_path(lambda path, _: held[_name(path)], wanted)


def _require_held(folder: Path, asked: dict[str, Any], held: dict[str, Any]) -> None:
    problems = []
    for name, leaf in asked.items():
        if name not in held:
            problems.append(f"{name} is missing")
        elif held[name].shape != leaf.shape:
            problems.append(f"{name} has the shape {held[name].shape} instead of {leaf.shape}")
    if problems:
        more = len(problems) - NAMED_MISMATCHES
        named = "; ".join(problems[:NAMED_MISMATCHES]) + (f"; and {more} more" if more > 0 else "")
        raise InvalidInput(f"initial.run: the parameters of {folder} do not fit config.model: {named}")


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _by_path(tree: Any) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}

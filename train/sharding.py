"""Where arrays live: a mesh of devices, and rules from the models' logical axes to the mesh's axes."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from models.errors import InvalidInput, invalid, require

MESH_AXES = ("data", "fsdp", "tensor", "sequence", "expert")


@dataclass(frozen=True)
class MeshConfig:
    """How many devices each axis of the mesh spans; -1 for `data`: as many as the other axes leave."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    sequence: int = 1
    expert: int = 1

    def __post_init__(self) -> None:
        require(self.data == -1 or self.data > 0, "data", self.data, "positive, or -1 for the rest of the devices")
        for axis in MESH_AXES[1:]:
            size = getattr(self, axis)
            require(size > 0, axis, size, "positive; only data may be -1")


@dataclass(frozen=True)
class AxisRules:
    """For each logical axis of parameters and batches, the mesh axes it is split over; () for none.

    How activations are split follows from these: XLA propagates it.
    """

    batch: tuple[str, ...] = ("data", "fsdp")
    length: tuple[str, ...] = ("sequence",)
    embed: tuple[str, ...] = ("fsdp",)
    heads: tuple[str, ...] = ("tensor",)
    kv_heads: tuple[str, ...] = ("tensor",)
    head_size: tuple[str, ...] = ()
    feed_forward: tuple[str, ...] = ("tensor",)
    vocabulary: tuple[str, ...] = ("tensor",)
    experts: tuple[str, ...] = ("expert",)
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        allowed = f"a list of different mesh axes of {', '.join(MESH_AXES)}"
        for field in dataclasses.fields(self):
            axes = getattr(self, field.name)
            valid = isinstance(axes, tuple) and set(axes) <= set(MESH_AXES) and len(set(axes)) == len(axes)
            require(valid, field.name, axes, allowed)

    def spec(self, axes: Sequence[str | None]) -> PartitionSpec:
        """The mesh axes of an array whose logical axes are `axes`; None is an axis that is not split.

        Raises InvalidInput where two axes of one array would be split over the same mesh axis.
        """
        owner: dict[str, str] = {}
        entries: list[Any] = []
        for axis in axes:
            if axis is None:
                entries.append(None)
                continue
            if axis not in self.__dataclass_fields__:
                raise ValueError(f"no sharding rule for the logical axis {axis!r}")
            mesh_axes: tuple[str, ...] = getattr(self, axis)
            for mesh_axis in mesh_axes:
                if mesh_axis in owner:
                    raise InvalidInput(f"sharding.rules split both {owner[mesh_axis]} and {axis} over {mesh_axis}")
                owner[mesh_axis] = axis
            entries.append(mesh_axes[0] if len(mesh_axes) == 1 else (mesh_axes or None))
        return PartitionSpec(*entries)


DEFAULT_RULES = AxisRules()


@dataclass(frozen=True)
class ShardingConfig:
    """A mesh and what is split over it."""

    mesh: MeshConfig = MeshConfig()
    rules: AxisRules = DEFAULT_RULES


def mesh_sizes(config: MeshConfig, devices: int) -> tuple[int, ...]:
    """Devices along each of MESH_AXES when there are `devices`.

    Raises InvalidInput naming the sizes and the device count where the mesh is larger than that or does not divide it.
    """
    sizes = [getattr(config, axis) for axis in MESH_AXES]
    written = " × ".join(f"{axis} {size}" for axis, size in zip(MESH_AXES, sizes, strict=True) if size not in (1, -1))
    needed = math.prod(size for size in sizes if size != -1)
    count = f"{devices} device" + "s" * (devices != 1)
    if needed > devices:
        raise InvalidInput(f"sharding.mesh of {written} needs {needed} devices, but there are only {count}")
    if devices % needed:
        raise InvalidInput(f"sharding.mesh of {written} takes {needed} devices, which does not divide {count}")
    return tuple(devices // needed if size == -1 else size for size in sizes)


def build_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over `devices` (default: all), with axes MESH_AXES; a smaller mesh takes the first devices.

    Raises InvalidInput naming the sizes and the device count where the mesh does not fit them, or would leave a
    process without a device.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = mesh_sizes(config, len(devices))
    taken = devices[: math.prod(sizes)]
    processes = {device.process_index for device in devices}
    if processes - {device.process_index for device in taken}:
        raise InvalidInput(
            f"sharding.mesh takes {len(taken)} of {len(devices)} devices, which leaves some of the {len(processes)} "
            "processes without one; it must use the devices of all of them"
        )
    # Linen's logical partitioning needs Auto axes; make_mesh would give Explicit ones.
    return jax.make_mesh(sizes, MESH_AXES, devices=taken, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def parameter_shardings(mesh: Mesh, boxed: Any, rules: AxisRules = DEFAULT_RULES) -> Any:
    """A NamedSharding for every parameter of a tree (abstract or not) boxed by `nn.with_logical_partitioning`.

    The result has the structure of the unboxed tree; a parameter without metadata is replicated. Raises InvalidInput
    naming the parameter, its dimension and the mesh axes where the dimension is not divisible by their size.
    """

    def sharding(path: Any, box: Any) -> NamedSharding:
        shape = nn.meta.unbox(box).shape
        spec = rules.spec(nn.get_partition_spec(box))
        for dimension, (size, entry) in enumerate(zip(shape, tuple(spec), strict=False)):
            if size % _devices_along(mesh, entry):
                raise InvalidInput(
                    f"parameter {path_name(path)} cannot be split: dimension {dimension} of its shape {tuple(shape)} "
                    f"is {size}, not a multiple of {_written(mesh, entry)} (sharding.mesh)"
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, boxed, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata))


def state_shardings(mesh: Mesh, state: Any, shardings: Any, parameters: Any) -> Any:
    """A NamedSharding for every leaf of an abstract state, such as `jax.eval_shape(transformation.init, parameters)`.

    A leaf that stands under a parameter's path in some part of the state and has its shape (Adam's moments, Muon's
    momentum, the parameters themselves) is split as the parameter is; everything else (counters, Adafactor's rows and
    columns) is replicated. `shardings` and the abstract, unboxed `parameters` are nested dicts of the same structure.
    """
    flat = jax.tree_util.tree_leaves_with_path(parameters)
    known = {
        tuple(path): (leaf.shape, sharding)
        for (path, leaf), sharding in zip(flat, jax.tree.leaves(shardings), strict=True)
    }
    replicated = NamedSharding(mesh, PartitionSpec())

    def of(path: Any, leaf: Any) -> NamedSharding:
        for start in range(len(path)):
            shape, sharding = known.get(tuple(path[start:]), (None, replicated))
            if shape is not None:
                return sharding if shape == leaf.shape else replicated
        return replicated

    return jax.tree_util.tree_map_with_path(of, state)


def batch_devices(mesh: Mesh, rules: AxisRules = DEFAULT_RULES) -> int:
    """How many devices, or groups of them, share the rows of a batch."""
    return _devices_along(mesh, rules.batch)


def require_batch(mesh: Mesh, batch_size: int, rules: AxisRules = DEFAULT_RULES) -> None:
    """Raises InvalidInput naming train.batch_size unless it is a multiple of the devices the batch is split over."""
    divisor = batch_devices(mesh, rules)
    allowed = f"a multiple of {_written(mesh, rules.batch)}, the devices a batch is split over"
    require(batch_size % divisor == 0, "train.batch_size", batch_size, allowed)


def batch_sharding(mesh: Mesh, shape: Sequence[int], rules: AxisRules = DEFAULT_RULES) -> NamedSharding:
    """How a batch's array [B, L, ...] is split: rows by the rule for batch, columns by the rule for length.

    Raises InvalidInput where rows or columns do not divide.
    """
    require_batch(mesh, shape[0], rules)
    if len(shape) > 1 and shape[1] % _devices_along(mesh, rules.length):
        raise invalid("train.length", shape[1], f"a multiple of {_written(mesh, rules.length)}")
    axes = ["batch", "length", *[None] * len(shape)]
    return NamedSharding(mesh, rules.spec(axes[: len(shape)]))


def process_rows(mesh: Mesh, batch_size: int, rules: AxisRules = DEFAULT_RULES) -> np.ndarray:
    """The rows of a batch of `batch_size` that this process's devices hold, increasing, int64.

    Processes whose devices differ only along other axes (tensor, sequence) hold the same rows.
    """
    require_batch(mesh, batch_size, rules)
    sharding = NamedSharding(mesh, rules.spec(["batch"]))
    indices = sharding.addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in indices]))


def put_batch(mesh: Mesh, batch: Mapping[str, np.ndarray], rules: AxisRules = DEFAULT_RULES) -> dict[str, jax.Array]:
    """Moves a host's arrays onto the mesh as global arrays.

    Each array holds all columns of the rows that `process_rows` names (of all rows, with a single process).
    """
    if jax.process_count() == 1:
        return {name: jax.device_put(x, batch_sharding(mesh, x.shape, rules)) for name, x in batch.items()}
    devices = batch_devices(mesh, rules)
    shards = process_rows(mesh, devices, rules)  # which of the batch's shards are here

    def put(local: np.ndarray) -> jax.Array:
        whole = (local.shape[0] // len(shards) * devices, *local.shape[1:])
        rows = process_rows(mesh, whole[0], rules)
        sharding = batch_sharding(mesh, whole, rules)

        def shard(index: tuple[slice, ...] | None) -> np.ndarray:
            if not index:
                return local
            start, stop, _ = index[0].indices(whole[0])
            first = int(np.searchsorted(rows, start))
            return local[(slice(first, first + stop - start), *index[1:])]

        return jax.make_array_from_callback(whole, sharding, shard)

    return {name: put(np.asarray(x)) for name, x in batch.items()}


def path_name(path: Sequence[Any]) -> str:
    """A key path as it is said to users: "decoder/layers/attention/query/kernel"."""
    return "/".join(str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry)))) for entry in path)


def _names(entry: Any) -> tuple[str, ...]:
    """The mesh axes of one entry of a PartitionSpec."""
    if entry is None:
        return ()
    return (entry,) if isinstance(entry, str) else tuple(entry)


def _devices_along(mesh: Mesh, entry: Any) -> int:
    return math.prod(mesh.shape[axis] for axis in _names(entry))


def _written(mesh: Mesh, entry: Any) -> str:
    names = _names(entry)
    return f"{' × '.join(names)} = {_devices_along(mesh, entry)}"

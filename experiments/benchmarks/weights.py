"""Equal weights for contenders: our parameters in a file, from which peers in other processes fill their models."""

from collections.abc import Iterator
from typing import Any

import numpy as np


def save_weights(path: str, parameters: dict[str, Any]) -> None:
    """Writes a nested dict of arrays as one .npz, under names such as "units/layer_0/attention/query/kernel"."""
    arrays: dict[str, Any] = dict(_flat(parameters, ""))
    np.savez(path, **arrays)


def _flat(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", np.asarray(value)


def load_weights(path: str) -> dict[str, Any]:
    """The nested dict that save_weights wrote."""
    tree: dict[str, Any] = {}
    with np.load(path) as arrays:
        for name in arrays.files:
            *folders, last = name.split("/")
            node = tree
            for folder in folders:
                node = node.setdefault(folder, {})
            node[last] = arrays[name]
    return tree


def load_layers(path: str) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    """The arrays outside the scanned stack, by name; and those of every layer, matrices as [in, out]."""
    with np.load(path) as arrays:
        outside = {name: arrays[name] for name in arrays.files if not name.startswith("units/")}
        stacked = {name.removeprefix("units/layer_0/"): arrays[name] for name in arrays.files if name not in outside}
    count = len(next(iter(stacked.values())))
    return outside, [{name: _as_matrix(name, array[i]) for name, array in stacked.items()} for i in range(count)]


def _as_matrix(name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim < 3:
        return array
    # Heads are an axis of their own: the output's are summed over, those of query, key and value kept.
    return array.reshape(-1, array.shape[-1]) if name.startswith("attention/output") else array.reshape(len(array), -1)

"""Nats per token of chosen windows, under any positional scheme, at any length."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.evaluation.windows import Window
from models.config import ModelConfig
from models.decoding import prompt_tokens
from models.positions.scheme import contiguous_tokens
from models.transformer import Transformer, output_matrix
from train.loss import chunk_tokens, cross_entropy

Array = jax.Array


def score_windows(
    model: ModelConfig,
    parameters: dict[str, Any],
    documents: Sequence[np.ndarray],
    windows: Sequence[Window],
    length: int,
    batch_tokens: int,
) -> list[np.ndarray]:
    """Nats of each window's scored targets, float32, in the order of `windows`.

    documents: token ids, int32 [n]; target i is token i + 1. Windows of fewer than `length` inputs are padded on the
    left with tokens that nobody sees; positions start at 0 with a window's first input. About `batch_tokens` tokens
    are computed at a time, by all devices of this process, each of which computes whole windows.
    """
    nats: list[np.ndarray | None] = [None] * len(windows)
    rows = max(1, batch_tokens // length)
    rows += -rows % jax.local_device_count()
    by_row = NamedSharding(_devices(), PartitionSpec("data"))
    parameters = on_all_devices(parameters)
    for full, scored, chosen in _alike(windows, length):
        for first in range(0, len(chosen), rows):
            group = chosen[first : first + rows]
            inputs = np.zeros((rows, length), np.int32)
            valid = np.zeros((rows, length), bool)
            targets = np.zeros((rows, scored), np.int32)
            for row, index in enumerate(group):
                window, tokens = windows[index], documents[windows[index].document]
                inputs[row, length - (window.stop - window.start) :] = tokens[window.start : window.stop]
                valid[row, length - (window.stop - window.start) :] = True
                targets[row, scored - (window.stop - window.scored) :] = tokens[window.scored + 1 : window.stop + 1]
            batch = jax.device_put((inputs, valid, targets), by_row)
            scores = np.asarray(_nats(model, full, parameters, *batch))
            for row, index in enumerate(group):
                nats[index] = scores[row, scored - (windows[index].stop - windows[index].scored) :]
    return nats  # type: ignore[return-value]


def on_all_devices(parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters, whole on each device of this process; costs nothing where they are already."""
    return jax.device_put(parameters, NamedSharding(_devices(), PartitionSpec()))


def _devices() -> Mesh:
    return Mesh(np.asarray(jax.local_devices()), ("data",))


def _alike(windows: Sequence[Window], length: int):
    """Windows that one compiled program serves: (whether all are full, how many last targets it scores, indices)."""
    groups: dict[tuple[bool, int], list[int]] = {}
    stride = max((w.stop - w.scored for w in windows if w.scored > w.start), default=length)
    for index, window in enumerate(windows):
        key = (window.stop - window.start == length, stride if window.scored > window.start else length)
        groups.setdefault(key, []).append(index)
    return [(full, scored, chosen) for (full, scored), chosen in groups.items()]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _nats(
    model: ModelConfig, full: bool, parameters: dict[str, Any], inputs_BxL: Array, valid_BxL: Array, targets_BxS: Array
) -> Array:
    """Nats [B, S] of the last S targets of each row."""
    where = contiguous_tokens(inputs_BxL.shape[1]) if full else prompt_tokens(valid_BxL)
    hidden_BxLxD, _ = Transformer(model).apply({"params": parameters}, inputs_BxL, where)
    hidden_BxSxD = hidden_BxLxD[:, -targets_BxS.shape[1] :]
    chunk = chunk_tokens(targets_BxS.size, model.vocabulary)
    losses = cross_entropy(
        hidden_BxSxD,
        output_matrix(model, parameters),
        targets_BxS,
        jnp.ones(targets_BxS.shape, jnp.float32),
        soft_cap=model.logit_soft_cap,
        chunk=chunk,
    )
    return losses.nats_BxL

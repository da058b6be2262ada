"""A learned bias per head for each bucket of distances."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from models.errors import require
from models.positions.scheme import Array, ParameterSpec, PositionScheme, Tile


def relative_bucket(relative_position: np.ndarray, bidirectional: bool, buckets: int, max_distance: int) -> np.ndarray:
    """Bucket of each relative position (key minus query), integers in [0, buckets), any shape.

    One bucket for each small distance, then logarithmically wider ones up to `max_distance`, which shares the last
    bucket with everything beyond. Bidirectional: half of the buckets are for later keys; otherwise later keys count as
    distance 0. NumPy, so that the edges do not depend on a device's logarithm. Source: Raffel et al. (2020), "Exploring
    the Limits of Transfer Learning", section 2.1, and the authors' code.
    """
    relative_position = np.asarray(relative_position)
    offset = np.zeros_like(relative_position)
    if bidirectional:
        buckets //= 2
        offset = np.where(relative_position > 0, buckets, 0)
        distances = np.abs(relative_position)
    else:
        distances = np.maximum(-relative_position, 0)
    exact = buckets // 2
    share = np.log(np.maximum(distances, exact) / exact) / math.log(max_distance / exact)
    # A distance exactly on an edge belongs to the wider bucket, whichever way its logarithm was rounded.
    logarithmic = exact + np.floor(share * (buckets - exact) + 1e-9).astype(offset.dtype)
    return offset + np.where(distances < exact, distances, np.minimum(logarithmic, buckets - 1))


@PositionScheme.registry.register("t5")
@dataclass(frozen=True)
class T5(PositionScheme):
    """Adds a learned bias per head and bucket of distances to the logits.

    Two choices differ from T5 itself: scores are divided by √head_size, as for every scheme here, where T5 folds that
    factor into its initialisation; and each layer has its own table, where T5 shares the first layer's.

    buckets: number of buckets. max_distance: distance in tokens from which all share the last bucket.
    """

    takes: ClassVar[str] = "whole distances"

    buckets: int = 32
    max_distance: int = 128

    def __post_init__(self):
        require(self.buckets >= 2, "buckets", self.buckets, "at least 2")
        exact = self.buckets // 2
        require(self.max_distance > exact, "max_distance", self.max_distance, f"above half of the buckets ({exact})")

    def layer_parameters(self, heads: int, head_size: int) -> dict[str, ParameterSpec]:
        """The table [buckets, heads]."""
        return {"bias": ParameterSpec((self.buckets, heads), jax.nn.initializers.normal(0.02), (None, "heads"))}

    def change_logits(self, parameters: dict[str, Array], logits_BxHxQxT: Array, tile: Tile) -> Array:
        """The logits plus each head's bias for the bucket of the distance, float32 [B, H, Q, T]."""
        # From max_distance on there is one bucket, so a table by distance is short and its buckets are constants.
        bucket_D = relative_bucket(-np.arange(self.max_distance + 1), False, self.buckets, self.max_distance)
        bias_DxH = parameters["bias"].astype(jnp.float32)[bucket_D]
        near_BxQxT = jnp.clip(self.distance(tile), 0, self.max_distance)
        bias_BxQxTxH = jnp.take(bias_DxH, near_BxQxT, axis=0, mode="clip")
        return logits_BxHxQxT + jnp.moveaxis(bias_BxQxTxH, -1, 1)

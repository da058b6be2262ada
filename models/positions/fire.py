"""A small network of the distance as a share of how far back the query could look (FIRE)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from models.errors import require
from models.positions.scheme import Array, ParameterSpec, PositionScheme, Tile

INITIAL_C = 0.1
# Keeps the share finite where the learned c has come to 0.
EPSILON = 1e-6

# Hidden numbers of the network that exist at once, in float32: 1 MiB, which stays in a CPU's cache.
HIDDEN_NUMBERS = 2**18


def _uniform(limit: float) -> Callable[..., Array]:
    """Uniform in -limit … limit: of a linear layer with n inputs, 1/√n for weights and biases alike."""

    def initialize(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return initialize


@PositionScheme.registry.register("fire")
@dataclass(frozen=True)
class FIRE(PositionScheme):
    """Adds `f_h(ψ(Δ) / ψ(max(m, L)))` to the logits of head h, for a query at position m and `ψ(x) = ln(c·x + 1)`.

    f is a network of one number to one per head with one hidden layer and ReLU; it, c and L are learned, by each layer
    for itself. c starts at 0.1; L is `threshold` times a learned multiplier that starts at 1; of c and the multiplier,
    only the sizes count. The network starts as PyTorch's linear layers do, which the authors used; that its last layer
    has no bias changes no weight, since softmax does not notice what all logits of a head share.

    hidden: units of the hidden layer. threshold: in tokens; queries before it divide by ψ(L), so that a short text is
      not stretched.
    What f sees lies between 0 and 1 at every length, so beyond the training length it sees nothing new. For queries
    beyond L the bias depends on their position too: it is then not a function of the distance alone.
    Source: Li et al. (2024), "Functional Interpolation for Relative Positions Improves Long Context Transformers",
    and the code of its appendix.
    """

    takes: ClassVar[str] = "distances"

    hidden: int = 32
    threshold: int = 512

    def __post_init__(self):
        require(self.hidden >= 1, "hidden", self.hidden, "at least 1")
        require(self.threshold >= 1, "threshold", self.threshold, "at least 1")

    def layer_parameters(self, heads: int, head_size: int) -> dict[str, ParameterSpec]:
        """c [], multiplier [], the network's hidden_weight, hidden_bias [hidden] and output_weight [hidden, heads]."""
        one, some = _uniform(1.0), _uniform(1 / math.sqrt(self.hidden))
        return {
            "c": ParameterSpec((), jax.nn.initializers.constant(INITIAL_C), ()),
            "multiplier": ParameterSpec((), jax.nn.initializers.ones, ()),
            "hidden_weight": ParameterSpec((self.hidden,), one, (None,)),
            "hidden_bias": ParameterSpec((self.hidden,), one, (None,)),
            "output_weight": ParameterSpec((self.hidden, heads), some, (None, "heads")),
        }

    def change_logits(self, parameters: dict[str, Array], logits_BxHxQxT: Array, tile: Tile) -> Array:
        """The logits plus what the network makes of the share, float32 [B, H, Q, T]."""
        parameters = {name: value.astype(jnp.float32) for name, value in parameters.items()}
        share_BxQxT = self._share(parameters, self.distance(tile), tile.query.position)
        return logits_BxHxQxT + _network(parameters, share_BxQxT)

    def _share(self, parameters: dict[str, Array], distance_BxQxT: Array, position_BxQ: Array) -> Array:
        """ψ(Δ) / ψ(max(m, L)), float32 [B or 1, Q, T], of distances taken as at least 0."""
        c = jnp.abs(parameters["c"])
        threshold = jnp.abs(parameters["multiplier"]) * self.threshold
        farthest_BxQ = jnp.maximum(position_BxQ.astype(jnp.float32), threshold)
        whole_BxQx1 = jnp.maximum(jnp.log1p(c * farthest_BxQ), EPSILON)[:, :, None]
        return jnp.log1p(c * jnp.maximum(distance_BxQxT, 0).astype(jnp.float32)) / whole_BxQx1


def _network(parameters: dict[str, Array], share_BxQxT: Array) -> Array:
    """The bias [B or 1, H, Q, T] at each share; some pairs at a time, whose hidden numbers are computed again by the
    backward pass, since those of a whole tile are as many as the hidden units times its pairs."""
    weight_Ux1, bias_Ux1 = parameters["hidden_weight"][:, None], parameters["hidden_bias"][:, None]

    def some(share_N: Array) -> Array:
        hidden_UxN = jax.nn.relu(share_N * weight_Ux1 + bias_Ux1)
        # A bias is not to be rounded to what fast matrix units keep of float32.
        exact = jax.lax.Precision.HIGHEST
        return jnp.einsum("uh,un->hn", parameters["output_weight"], hidden_UxN, precision=exact)

    pairs = share_BxQxT.size
    together = min(max(HIDDEN_NUMBERS // weight_Ux1.size, 1), pairs)
    share_CxN = jnp.pad(share_BxQxT.reshape(-1), (0, -pairs % together)).reshape(-1, together)
    bias_CxHxN = jax.lax.map(jax.checkpoint(some), share_CxN)
    heads = bias_CxHxN.shape[1]
    bias_HxBxQxT = jnp.moveaxis(bias_CxHxN, 1, 0).reshape(heads, -1)[:, :pairs].reshape(heads, *share_BxQxT.shape)
    return jnp.moveaxis(bias_HxBxQxT, 0, 1)

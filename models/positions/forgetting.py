"""A forget gate on attention: how much of the past each token lets through."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from models.positions.scheme import Array, ParameterSpec, PositionScheme, Tile, Tokens

# Sums of multiples of this are exact in float32 up to 2¹⁸.
GRAIN = 2.0**-6


def cumulative_log_gates(log_gate_BxLxH: Array, starts_BxL: Array, before: dict[str, Array]) -> dict[str, Array]:
    """Running sums of log gates within documents, in two parts whose sum they are: `coarse` and `fine`, [B, L, H].

    Differences of float32 sums lose what the sums have grown by: at 10,000, a thousandth. So each summand is split into
    a multiple of 1/64, whose sums are exact, and a remainder, whose sums stay small; both are subtracted apart.

    starts_BxL: where a document starts; the sum begins anew there, at that token's own log gate. before: the parts of
    the token before the first, each [B, H].
    """
    coarse = jax.lax.stop_gradient(jnp.round(log_gate_BxLxH / GRAIN) * GRAIN)
    parts = {"coarse": coarse, "fine": log_gate_BxLxH - coarse}
    started_BxLx1 = jnp.broadcast_to(starts_BxL, log_gate_BxLxH.shape[:2])[..., None]

    def join(earlier, later):
        (earlier_started, earlier_sums), (later_started, later_sums) = earlier, later
        sums = jax.tree.map(lambda x, y: jnp.where(later_started, y, x + y), earlier_sums, later_sums)
        return earlier_started | later_started, sums

    started, sums = jax.lax.associative_scan(join, (started_BxLx1, parts), axis=1)
    return {name: total + jnp.where(started, 0.0, before[name][:, None]) for name, total in sums.items()}


@PositionScheme.registry.register("forgetting")
@dataclass(frozen=True)
class Forgetting(PositionScheme):
    """Forgetting attention (FoX): logits `q_m·k_n/√head_size + Σ_{t = n+1 … m} ln f_t`, `f_t = σ(w_h·x_t + b_h)`.

    One gate per head and token, of the layer's input x to attention, in float32. The sum is c_m - c_n with c the
    cumulative sum, a per-token feature: it begins anew with each document, padding leaves it as it is, and a cache
    goes on from its last slot. No other positions are needed, none are added. Beyond the training length nothing is
    undefined: how far a head looks is what its gates say. Weights start small and biases at zero, so gates near 1/2, as
    in the authors' code (biases spread by decay time are for its gates that see no input). Source: Lin et al. (2025),
    "Forgetting Transformer: Softmax Attention with a Forget Gate", section 3.
    """

    one_sided: ClassVar[bool] = True

    def feature_parameters(self, width: int, heads: int) -> dict[str, ParameterSpec]:
        """`gate` [width, heads] and `gate_bias` [heads]."""
        return {
            "gate": ParameterSpec((width, heads), jax.nn.initializers.normal(0.02), ("embed", "heads")),
            "gate_bias": ParameterSpec((heads,), jax.nn.initializers.zeros, ("heads",)),
        }

    def feature_shapes(self, heads: int) -> dict[str, tuple[int, ...]]:
        """Two numbers per head and token; see `cumulative_log_gates`."""
        return {"coarse": (heads,), "fine": (heads,)}

    def features(
        self, parameters: dict[str, Array], x_BxLxD: Array, tokens: Tokens, before: dict[str, Array]
    ) -> dict[str, Array]:
        """The cumulative log gates of each token, [B, L, H] in two parts."""
        gate_DxH = parameters["gate"].astype(x_BxLxD.dtype)
        projected = jnp.einsum("bld,dh->blh", x_BxLxD, gate_DxH, preferred_element_type=jnp.float32)
        log_gate_BxLxH = jax.nn.log_sigmoid(projected + parameters["gate_bias"].astype(jnp.float32))
        real_BxL = tokens.document >= 0
        log_gate_BxLxH = jnp.where(real_BxL[..., None], log_gate_BxLxH, 0.0)
        return cumulative_log_gates(log_gate_BxLxH, real_BxL & (tokens.position == 0), before)

    def change_logits(self, parameters: dict[str, Array], logits_BxHxQxT: Array, tile: Tile) -> Array:
        """The logits plus the log of what was not forgotten since each key, float32 [B, H, Q, T]."""

        def since(name: str) -> Array:
            query_BxHxQ, key_BxHxT = (jnp.moveaxis(x.features[name], -1, 1) for x in (tile.query, tile.key))
            return query_BxHxQ[..., None] - key_BxHxT[:, :, None]

        return logits_BxHxQxT + (since("coarse") + since("fine"))

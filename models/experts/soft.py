"""Soft mixture: experts work on weighted means of all tokens of a row."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from models.errors import require
from models.experts.experts import Compute, Experts, Mixture

Array = jax.Array


@Experts.registry.register("soft")
@dataclass(frozen=True)
class Soft(Mixture):
    """Y = C · experts(Dᵀ X), D the softmax over tokens and C over slots of X Φ; each expert has `slots` slots of a row.

    Fully differentiable, nothing dropped, no loss to balance; the cost depends on the slots and not on the length. Each
    slot is a mean over the whole row, later tokens included, and its weights change with the row's length: a decoder
    refuses it. Means over the tokens before each would need every expert at every token. Source: Puigcerver et al.
    (2024), "From Sparse to Soft Mixtures of Experts", section 2.1, without the normalization of X and Φ.
    """

    causal = False

    slots: int = 1

    def __post_init__(self):
        super().__post_init__()
        require(self.slots >= 1, "slots", self.slots, "at least 1")

    def router_outputs(self) -> int:
        return self.count * self.slots

    def experts_per_token(self, length: int) -> float:
        return self.count * self.slots / length

    def mix(
        self, logits_BxLxE: Array, x_BxLxD: Array, real_BxL: Array, compute: Compute, training: bool
    ) -> tuple[Array, dict[str, Array]]:
        (batch, _, width), dtype = x_BxLxD.shape, x_BxLxD.dtype
        seen_BxLx1 = real_BxL[..., None]
        dispatch_BxLxS = jnp.where(seen_BxLx1, jax.nn.softmax(logits_BxLxE, axis=1, where=seen_BxLx1), 0.0)
        combine_BxLxS = jax.nn.softmax(logits_BxLxE, axis=2)
        x_BxSxD = jnp.einsum("bls,bld->bsd", dispatch_BxLxS.astype(dtype), x_BxLxD)
        x_ExBxPxD = jnp.swapaxes(x_BxSxD.reshape(batch, self.count, self.slots, width), 0, 1)
        y_ExNxD = compute(x_ExBxPxD.reshape(self.count, batch * self.slots, width), None)
        y_BxExPxD = jnp.swapaxes(y_ExNxD.reshape(self.count, batch, self.slots, width), 0, 1)
        return jnp.einsum("bls,bsd->bld", combine_BxLxS.astype(dtype), y_BxExPxD.reshape(batch, -1, width)), {}

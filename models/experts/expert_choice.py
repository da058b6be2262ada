"""Expert choice: each expert takes the tokens of a row that score highest for it."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from models.errors import require
from models.experts.experts import Compute, Experts, Mixture

Array = jax.Array


@Experts.registry.register("expert_choice")
@dataclass(frozen=True)
class ExpertChoice(Mixture):
    """Each expert takes the ⌈capacity_factor · L / count⌉ tokens of a row of L whose probability for it is largest.

    y = Σ over the experts that took x of S_e · expert_e(x), with S the softmax over experts of x · router. Every expert
    is full, so no loss balances them; a token may be taken by many or by none. Which tokens are taken depends on the
    whole row, later ones included, and on its length: a decoder refuses it. Source: Zhou et al. (2022),
    "Mixture-of-Experts with Expert Choice Routing", section 3.2, within each row.
    """

    causal = False

    capacity_factor: float = 2.0

    def __post_init__(self):
        super().__post_init__()
        fits = 0 < self.capacity_factor <= self.count
        require(fits, "capacity_factor", self.capacity_factor, f"above 0 and at most count = {self.count}")

    def capacity(self, length: int) -> int:
        """How many tokens of a row of `length` an expert takes."""
        return math.ceil(round(self.capacity_factor * length / self.count, 6))

    def experts_per_token(self, length: int) -> float:
        return self.capacity(length) * self.count / length

    def mix(
        self, logits_BxLxE: Array, x_BxLxD: Array, real_BxL: Array, compute: Compute, training: bool
    ) -> tuple[Array, dict[str, Array]]:
        batch, length, width = x_BxLxD.shape
        capacity = self.capacity(length)
        probability_BxLxE = jnp.where(real_BxL[..., None], jax.nn.softmax(logits_BxLxE, axis=-1), 0.0)
        weight_BxExC, token_BxExC = jax.lax.top_k(jnp.swapaxes(probability_BxLxE, 1, 2), capacity)
        row_Bx1x1 = jnp.arange(batch)[:, None, None]
        x_ExBxCxD = jnp.swapaxes(x_BxLxD[row_Bx1x1, token_BxExC], 0, 1)
        y_ExNxD = compute(x_ExBxCxD.reshape(self.count, batch * capacity, width), None)
        y_BxExCxD = jnp.swapaxes(y_ExNxD.reshape(self.count, batch, capacity, width), 0, 1)
        weighted_BxExCxD = y_BxExCxD * weight_BxExC[..., None].astype(x_BxLxD.dtype)
        return jnp.zeros_like(x_BxLxD).at[row_Bx1x1, token_BxExC].add(weighted_BxExCxD), {}

"""Token choice without a capacity: however many tokens choose an expert, it takes them all."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from models.experts.experts import Compute, Experts
from models.experts.routing import Routing, TokenRouted, sorted_by_expert

Array = jax.Array


@Experts.registry.register("dropless")
@dataclass(frozen=True)
class Dropless(TokenRouted):
    """Rows are sorted by expert, and each expert multiplies its own stretch (jax.lax.ragged_dot; on CPU in blocks):
    nothing is dropped.

    A token's output depends on no other token, in training as in decoding. On several devices the sort is over the
    whole batch, whose tokens are gathered for it. Source: Gale et al. (2023), "MegaBlocks", with a ragged product in
    the place of block-sparse ones.
    """

    def outputs(
        self, routing: Routing, x_BxLxD: Array, real_BxL: Array, compute: Compute, training: bool
    ) -> tuple[Array, Array]:
        return sorted_by_expert(routing, x_BxLxD, self.count, compute), jnp.zeros(())

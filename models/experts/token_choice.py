"""Token choice with a capacity: in training, an expert takes so many tokens of a row and drops the others."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from models.errors import require
from models.experts.experts import Compute, Experts
from models.experts.routing import Routing, TokenRouted, sorted_by_expert

Array = jax.Array


@Experts.registry.register("token_choice")
@dataclass(frozen=True)
class TokenChoice(TokenRouted):
    """In training, an expert takes at most C = ⌈capacity_factor · top_k · L / count⌉ tokens of each row of L.

    The room of an expert goes by position, the earliest tokens first, and a token's better choice before its other
    ones; padding takes none. A choice that finds no room adds nothing: the token has its other experts, the shared
    ones, and the residual stream. So a token's fate depends on earlier tokens of its row and never on a later one or on
    another row (GShard gives room to all first choices before any second one, which would let a later token displace an
    earlier); documents packed into one row share its room.

    Outside training nothing is dropped: the same router, computed as "dropless" is. A capacity would make what a token
    becomes depend on how long the text is and on how much of it is computed at a time, and decoding could not equal
    prefilling. Sources: Lepikhin et al. (2021), "GShard", algorithm 1; Fedus et al. (2022), "Switch Transformers",
    equation 3 and section 2.2.
    """

    capacity_factor: float = 1.25

    def __post_init__(self):
        super().__post_init__()
        finite = 0 < self.capacity_factor < math.inf
        require(finite, "capacity_factor", self.capacity_factor, "a finite number above 0")

    def capacity(self, length: int) -> int:
        """C, in tokens of a row of `length`."""
        # Rounded first: 1.1 · 10 is a little more than 11 in floating point.
        return min(length, math.ceil(round(self.capacity_factor * self.top_k * length / self.count, 6)))

    def outputs(
        self, routing: Routing, x_BxLxD: Array, real_BxL: Array, compute: Compute, training: bool
    ) -> tuple[Array, Array]:
        if not training:
            return sorted_by_expert(routing, x_BxLxD, self.count, compute), jnp.zeros(())
        (batch, length, width), count = x_BxLxD.shape, self.count
        capacity = self.capacity(length)
        room, nothing = count * capacity, count * capacity
        expert_BxA = routing.expert_BxLxK.reshape(batch, -1)
        real_BxA = jnp.repeat(real_BxL, self.top_k, axis=1)
        place_BxA = places(expert_BxA, count, real_BxA)
        kept_BxA = real_BxA & (place_BxA < capacity)
        slot_BxA = jnp.where(kept_BxA, expert_BxA * capacity + place_BxA, nothing)

        token_A = jnp.arange(length * self.top_k) // self.top_k
        empty_S = jnp.full(room, length)
        token_BxS = jax.vmap(lambda slot_A: empty_S.at[slot_A].set(token_A, mode="drop"))(slot_BxA)
        x_BxExCxD = _rows(x_BxLxD, token_BxS).reshape(batch, count, capacity, width)
        y_ExNxD = compute(jnp.swapaxes(x_BxExCxD, 0, 1).reshape(count, batch * capacity, width), None)
        y_BxExCxD = jnp.swapaxes(y_ExNxD.reshape(count, batch, capacity, width), 0, 1)
        y_BxAxD = _rows(y_BxExCxD.reshape(batch, room, width), slot_BxA)
        dropped = 1 - kept_BxA.sum() / jnp.maximum(real_BxA.sum(), 1)
        return y_BxAxD.reshape(batch, length, self.top_k, width), jnp.where(real_BxL.any(), dropped, 0.0)


def places(expert_BxA: Array, count: int, real_BxA: Array) -> Array:
    """How many real choices before each one in its row fell on the same expert, int32 [B, A]."""
    chosen_BxAxE = jax.nn.one_hot(expert_BxA, count, dtype=jnp.int32) * real_BxA[..., None]
    before_BxAxE = jnp.cumsum(chosen_BxAxE, axis=1) - chosen_BxAxE
    return jnp.take_along_axis(before_BxAxE, expert_BxA[..., None], axis=-1)[..., 0]


def _rows(x_BxNxD: Array, index_BxM: Array) -> Array:
    """Row index_BxM of each x, [B, M, D]; zeros where the index is N."""
    return jax.vmap(lambda x, index: x.at[index].get(mode="fill", fill_value=0))(x_BxNxD, index_BxM)

"""Routing by the token's choice: each token takes the experts whose router logits are largest (Shazeer et al. 2017)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from models.errors import require, require_choice
from models.experts.experts import Compute, Groups, Mixture

Array = jax.Array

WEIGHTS = ("renormalized", "probability")


class Routing(NamedTuple):
    """expert_BxLxK: int32, the experts of each token, best first. weight_BxLxK: float32, what their outputs are
    multiplied by. probability_BxLxE: float32, the softmax of the logits."""

    expert_BxLxK: Array
    weight_BxLxK: Array
    probability_BxLxE: Array


def choose(logits_BxLxE: Array, top_k: int, weights: str) -> Routing:
    """The `top_k` experts of each token, with weights as in TokenRouted."""
    top_BxLxK, expert_BxLxK = jax.lax.top_k(logits_BxLxE, top_k)
    probability_BxLxE = jax.nn.softmax(logits_BxLxE, axis=-1)
    if weights == "renormalized":
        weight_BxLxK = jax.nn.softmax(top_BxLxK, axis=-1)
    else:
        weight_BxLxK = jnp.take_along_axis(probability_BxLxE, expert_BxLxK, axis=-1)
    return Routing(expert_BxLxK, weight_BxLxK, probability_BxLxE)


def load(expert_BxLxK: Array, count: int, real_BxL: Array) -> Array:
    """The share of all choices that falls on each expert, float32 [E]; they sum to 1."""
    chosen_BxLxE = jax.nn.one_hot(expert_BxLxK, count).sum(axis=2)
    return mean_of_real(chosen_BxLxE, real_BxL) / expert_BxLxK.shape[-1]


def balance_loss(load_E: Array, probability_BxLxE: Array, real_BxL: Array) -> Array:
    """E · Σ_e load_e · P_e, P the mean probability of each expert, float32 []: 1 where both are uniform.

    The load has no gradient; the loss lowers the probability of experts that are chosen too often. Source: Fedus et al.
    (2022), "Switch Transformers", equations 4 to 6; over all choices, as here, Dai et al. (2024), "DeepSeekMoE",
    equations 12 to 14 (algorithm 1 of GShard, Lepikhin et al. 2021, counts first choices alone).
    """
    mean_E = mean_of_real(probability_BxLxE, real_BxL)
    return load_E.shape[0] * jnp.sum(jax.lax.stop_gradient(load_E) * mean_E)


def router_z_loss(logits_BxLxE: Array, real_BxL: Array) -> Array:
    """The mean of (ln Σ_e exp logit_e)² over tokens, float32 [] (Zoph et al. 2022, "ST-MoE", equation 5)."""
    return mean_of_real(jnp.square(jax.nn.logsumexp(logits_BxLxE, axis=-1)), real_BxL)


def router_entropy(logits_BxLxE: Array, real_BxL: Array) -> Array:
    """The mean entropy of the router's probabilities over tokens, in nats, float32 []; ln E where they are uniform."""
    log_BxLxE = jax.nn.log_softmax(logits_BxLxE, axis=-1)
    return mean_of_real(-jnp.sum(jnp.exp(log_BxLxE) * log_BxLxE, axis=-1), real_BxL)


def mean_of_real(values_BxLxetc: Array, real_BxL: Array) -> Array:
    """The mean over the places of a batch that are not padding, float32 [...]; 0 where all are."""
    real = real_BxL.astype(jnp.float32)
    summed = jnp.tensordot(real, values_BxLxetc.astype(jnp.float32), axes=2)
    return summed / jnp.maximum(real.sum(), 1.0)


def sorted_by_expert(routing: Routing, x_BxLxD: Array, count: int, compute: Compute) -> Array:
    """Each token through all of its experts, [B, L, K, D]; rows are sorted by expert, and none is dropped."""
    top_k = routing.expert_BxLxK.shape[-1]
    expert_A = routing.expert_BxLxK.reshape(-1)
    order_A = jnp.argsort(expert_A, stable=True)
    x_AxD = x_BxLxD.reshape(-1, x_BxLxD.shape[-1])[order_A // top_k]
    groups = Groups(expert_A[order_A], jnp.bincount(expert_A, length=count).astype(jnp.int32))
    y_AxD = compute(x_AxD, groups)
    place_A = jnp.zeros_like(order_A).at[order_A].set(jnp.arange(len(order_A), dtype=order_A.dtype))
    return y_AxD[place_A].reshape(*routing.expert_BxLxK.shape, -1)


@dataclass(frozen=True)
class TokenRouted(Mixture):
    """A token x passes through the top_k experts of the largest logits of x · router: y = Σ_k weight_k · expert_k(x).

    top_k: experts a token takes. weights: "renormalized" is the softmax over the chosen logits alone (GShard, Mixtral);
      "probability" is the softmax over all, not renormalized (Switch, DeepSeekMoE), the only one for top_k = 1, where
      the other would be 1 and teach the router nothing.
    balance_loss: weight of the load-balance loss (see `balance_loss`); 0.01 in Switch. router_z_loss: weight of the
      router z-loss (see `router_z_loss`); 0.001 in ST-MoE. Both are per layer, means over the batch's tokens, and are
      no part of the reported loss. Of a batch computed in parts, each part is balanced by itself.

    Router, softmax and losses are float32 whatever the model's dtype (Switch, section 2.4). A token's experts follow
    from the token alone, at any length: nothing changes beyond the training length.
    """

    top_k: int = 2
    weights: str = "renormalized"
    balance_loss: float = 0.01
    router_z_loss: float = 0.001

    def __post_init__(self):
        super().__post_init__()
        require(1 <= self.top_k <= self.count, "top_k", self.top_k, f"1 to count = {self.count}")
        require_choice("weights", self.weights, WEIGHTS)
        teaches = self.top_k > 1 or self.weights == "probability"
        require(teaches, "weights", self.weights, "'probability' where top_k = 1: one renormalized weight is always 1")
        for field in ("balance_loss", "router_z_loss"):
            require(0 <= getattr(self, field) < float("inf"), field, getattr(self, field), "at least 0 (0 is off)")

    def experts_per_token(self, length: int) -> float:
        return self.top_k

    def mix(
        self, logits_BxLxE: Array, x_BxLxD: Array, real_BxL: Array, compute: Compute, training: bool
    ) -> tuple[Array, dict[str, Array]]:
        routing = choose(logits_BxLxE, self.top_k, self.weights)
        y_BxLxKxD, dropped = self.outputs(routing, x_BxLxD, real_BxL, compute, training)
        weight_BxLxK = routing.weight_BxLxK.astype(x_BxLxD.dtype)
        mixed_BxLxD = jnp.einsum("blkd,blk->bld", y_BxLxKxD, weight_BxLxK)
        load_E = load(routing.expert_BxLxK, self.count, real_BxL)
        balance = balance_loss(load_E, routing.probability_BxLxE, real_BxL)
        z_loss = router_z_loss(logits_BxLxE, real_BxL)
        return mixed_BxLxD, {
            "loss": self.balance_loss * balance + self.router_z_loss * z_loss,
            "balance_loss": balance,
            "router_z_loss": z_loss,
            "router_entropy": router_entropy(logits_BxLxE, real_BxL),
            "dropped_share": dropped,
            "expert_load": load_E,
        }

    def outputs(
        self, routing: Routing, x_BxLxD: Array, real_BxL: Array, compute: Compute, training: bool
    ) -> tuple[Array, Array]:
        """What each token's experts make of it, [B, L, K, D], 0 for a dropped choice; and the share of choices of real
        tokens that was dropped, float32 []."""
        raise NotImplementedError

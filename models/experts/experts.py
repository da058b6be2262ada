"""What every mixture of experts states: how many experts there are, how wide, and how tokens and experts meet."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax

from models.errors import require
from models.registry import Registry

Array = jax.Array


class Groups(NamedTuple):
    """Rows sorted by expert. expert_M: int32, the expert of each row. sizes_E: int32, how many rows each has."""

    expert_M: Array
    sizes_E: Array


# The experts themselves, with their parameters: [E, N, D] -> [E, N, D], expert e on its own N rows; or, with groups,
# rows sorted by expert, [M, D] -> [M, D].
Compute = Callable[[Array, Groups | None], Array]


@dataclass(frozen=True)
class Experts:
    """Base of the family. causal: whether what a token becomes depends on no later one of its row."""

    registry: ClassVar[Registry] = Registry("experts.name")
    name: ClassVar[str]
    causal: ClassVar[bool] = True


@Experts.registry.register("none")
@dataclass(frozen=True)
class NoExperts(Experts):
    """One dense feed-forward layer that every token passes through."""


@dataclass(frozen=True)
class Mixture(Experts):
    """Experts of the kind that `feed_forward` says (activation, bias), and a router that is one linear map.

    count: how many experts are routed to. width: the hidden size of each; None is that of the dense layer, so that a
    token which passes through k experts costs k times as much. shared: experts of that width which every token passes
    through beside its own (DeepSeekMoE, Dai et al. 2024, section 3.2); computed as one that is `shared` times as wide.
    """

    count: int = 8
    width: int | None = None
    shared: int = 0

    def __post_init__(self):
        require(self.count >= 2, "count", self.count, "at least 2; 'none' is the name of one dense layer")
        require(self.width is None or self.width >= 1, "width", self.width, "at least 1")
        require(self.shared >= 0, "shared", self.shared, "at least 0")

    def router_outputs(self) -> int:
        """How many numbers the router gives each token."""
        return self.count

    def experts_per_token(self, length: int) -> float:
        """How many routed experts a token of a row of `length` passes through, on average, before any is dropped."""
        raise NotImplementedError

    def mix(
        self, logits_BxLxE: Array, x_BxLxD: Array, real_BxL: Array, compute: Compute, training: bool
    ) -> tuple[Array, dict[str, Array]]:
        """What the routed experts add to each token, [B, L, D] in the dtype of `x`; and facts about the routing.

        logits: float32, of the router. real: bool, false where a place of a row is padding, which changes nothing for
        the others. Facts are float32: "loss" [] joins the training objective, others are metrics.
        """
        raise NotImplementedError

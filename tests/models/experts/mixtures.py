"""What tests of mixtures share: layers with random parameters, and their definition as a loop over tokens."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from models.experts import ExpertLayer, Mixture
from models.experts.layer import COLLECTION
from models.feed_forward import FeedForwardKind
from tests.models.samples import compiled, random

WIDTH, HIDDEN = 6, 10


def layer(mixture: Mixture, name: str = "reglu", bias: bool = True, training: bool = True) -> ExpertLayer:
    return ExpertLayer(mixture, FeedForwardKind(name, bias), HIDDEN, training)


def parameters_of_layer(module: ExpertLayer, seed: int = 0) -> dict:
    """Random parameters of a layer, biases too."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 2, WIDTH)), jnp.ones((1, 2), bool)))
    rng = np.random.default_rng(seed)
    plain = nn.meta.unbox(shapes["params"])
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), plain)


def run(module: ExpertLayer, parameters: dict, x_BxLxD, real_BxL=None) -> tuple[np.ndarray, dict]:
    """The layer's output, and what it says of its routing."""
    real = jnp.ones(x_BxLxD.shape[:2], bool) if real_BxL is None else jnp.asarray(real_BxL)
    output, sown = _apply(module, parameters, x_BxLxD, real)
    return np.asarray(output), jax.tree.map(np.asarray, sown.get(COLLECTION, {}))


@functools.partial(compiled, static_argnums=0)
def _apply(module, parameters, x_BxLxD, real_BxL):
    return module.apply({"params": parameters}, x_BxLxD, real_BxL, mutable=[COLLECTION])


def expert(parameters: dict, index: int | None, x: np.ndarray) -> np.ndarray:
    """One expert (None: the shared ones) on a token [D], in float64: out(relu(gate) · up), or out(relu(up))."""
    part = parameters["shared"] if index is None else parameters["experts"]

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        leaf = {key: np.asarray(value, np.float64) for key, value in part[name].items()}
        kernel, bias = leaf["kernel"], leaf.get("bias", np.zeros(1))
        if index is None:
            return x @ kernel + bias
        return x @ kernel[index] + (bias[index] if "bias" in leaf else 0)

    gates = "gate" in part
    hidden = np.maximum(linear("gate" if gates else "up", x), 0) * (linear("up", x) if gates else 1)
    return linear("output", hidden)


def probabilities(parameters: dict, x_BxLxD) -> np.ndarray:
    """Softmax of the router's logits over its outputs, float64 [B, L, E]."""
    logits = np.asarray(x_BxLxD, np.float64) @ np.asarray(parameters["router"]["kernel"], np.float64)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def tokens(rows: int = 2, length: int = 8, seed: int = 5) -> jax.Array:
    return random(rows, length, WIDTH, seed=seed)

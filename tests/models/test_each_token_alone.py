"""Every norm and every feed-forward layer by its registered name: what they do to a token depends on no other token,
and loops over layers, recomputation and dtypes change nothing but what is stated."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.feed_forward import ACTIVATIONS, FeedForward, FeedForwardKind
from models.norms import NORMS, make_norm
from tests.models.samples import compiled, random, relative_error

WIDTH, LENGTH, LAYERS = 8, 5, 2
MODULES = {f"norm {name}": make_norm(name, 1e-6)() for name in NORMS} | {
    f"feed_forward {name}": FeedForward(FeedForwardKind(name, bias=True), 12) for name in ACTIVATIONS
}
# Of the largest entry; an activation's input is rounded before it and its output after.
BFLOAT16_ERROR = 0.03


def layers_of(module) -> list[dict]:
    """Random parameters of some layers, none of them 0."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 1, WIDTH)))).get("params", {})
    leaves, tree = jax.tree.flatten(shapes)
    return [
        jax.tree.unflatten(tree, [random(*leaf.shape, seed=9 * layer + i) for i, leaf in enumerate(leaves)])
        for layer in range(LAYERS)
    ]


@functools.partial(compiled, static_argnums=0)
def results(module, layers, x_BxLxD):
    """What must agree, by name."""

    def apply(parameters, x):
        return module.apply({"params": parameters}, x)

    def looped(layers, x):
        return functools.reduce(lambda x, parameters: apply(parameters, x), layers, x)

    def scanned(layers, x):
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
        return jax.lax.scan(lambda x, parameters: (apply(parameters, x), None), x, stacked, LAYERS)[0]

    def gradient(stack):
        return jax.grad(lambda layers, x: jnp.vdot(stack(layers, x), jnp.cos(x)), (0, 1))(layers, x_BxLxD)

    one_by_one = jax.lax.map(lambda x_BxD: looped(layers, x_BxD[:, None])[:, 0], jnp.swapaxes(x_BxLxD, 0, 1))
    return {
        "tokens": (looped(layers, x_BxLxD), jnp.swapaxes(one_by_one, 0, 1)),
        "scan": (looped(layers, x_BxLxD), scanned(layers, x_BxLxD)),
        "scan's gradient": (gradient(looped), gradient(scanned)),
        "recomputation": (gradient(looped), gradient(jax.checkpoint(looped))),
    }


@pytest.mark.parametrize("name", MODULES)
def test_tokens_one_by_one_and_layers_in_any_loop_are_the_same(name):
    module, x_BxLxD = MODULES[name], random(2, LENGTH, WIDTH)
    for what, (wanted, got) in results(module, layers_of(module), x_BxLxD).items():
        assert relative_error(got, wanted) < 1e-5, what
        assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(wanted)), what


@pytest.mark.parametrize("name", MODULES)
def test_bfloat16_is_off_by_rounding(name):
    module, x = MODULES[name], random(2, LENGTH, WIDTH)
    parameters = {"params": layers_of(module)[0]}
    rounded = module
    if isinstance(module, FeedForward):
        rounded = module.clone(kind=dataclasses.replace(module.kind, dtype=jnp.bfloat16))
    got = rounded.apply(parameters, x.astype(jnp.bfloat16))
    assert got.dtype == jnp.bfloat16
    assert 1e-4 < relative_error(got, module.apply(parameters, x)) < BFLOAT16_ERROR

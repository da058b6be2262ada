"""The small parts of a layer against their formulas: linear maps, norms, feed-forward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.feed_forward import ACTIVATIONS, FeedForward, gated
from models.linear import Linear, product, sum_of_outer
from models.norms import NORMS, make_norm
from tests.models.samples import random


def kernels(**shapes):
    return {name: {"kernel": random(*shape, seed=i + 1)} for i, (name, shape) in enumerate(shapes.items())}


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


FORMULAS = {
    "gelu": tanh_gelu,
    "relu": lambda x: np.maximum(x, 0),
    "swiglu": lambda x: x / (1 + np.exp(-x)),
    "geglu": tanh_gelu,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_feed_forward_follows_its_formula(name):
    parameters = kernels(up=(6, 10), gate=(6, 10), output=(10, 6))
    if not gated(name):
        del parameters["gate"]
    x, module = random(2, 3, 6), FeedForward(name, 10, jnp.float32, 0.5)
    up, gate, down = (np.asarray(parameters.get(n, parameters["up"])["kernel"]) for n in ("up", "gate", "output"))
    hidden = FORMULAS[name](x @ gate) * ((x @ up) if gated(name) else 1)
    np.testing.assert_allclose(module.apply({"params": parameters}, x), hidden @ down, rtol=1e-4, atol=1e-4)


def test_every_activation_has_a_formula_here():
    assert set(FORMULAS) == set(ACTIVATIONS) and {name for name in ACTIVATIONS if gated(name)} == {"swiglu", "geglu"}


def test_linear_maps_sum_over_the_last_axes():
    x, kernel = random(2, 3, 4, 5), random(4, 5, 6, 7, seed=1)
    module = Linear((6, 7), ("heads", "head_size", "embed", None), jnp.float32, inputs=2)
    got = module.apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_allclose(got, np.einsum("abcd,cdef->abef", x, kernel), rtol=1e-5, atol=1e-5)
    boxed = jax.eval_shape(lambda: module.init(jax.random.key(0), x))["params"]["kernel"]
    assert boxed.names == ("heads", "head_size", "embed", None) and boxed.unbox().dtype == jnp.float32


def test_linear_maps_compute_in_their_dtype():
    module = Linear((6,), ("embed", "heads"), jnp.bfloat16)
    assert module.apply({"params": {"kernel": random(4, 6)}}, random(2, 4)).dtype == jnp.bfloat16


def test_norms_follow_their_formulas():
    x, scale, bias = 3 * random(2, 3, 8) + 1, random(8, seed=1), random(8, seed=2)
    root_mean_square = np.sqrt((np.asarray(x) ** 2).mean(-1, keepdims=True) + 0.25)
    got = make_norm("rms", 0.25)().apply({"params": {"scale": scale}}, x)
    np.testing.assert_allclose(got, x / root_mean_square * scale, rtol=1e-5, atol=1e-5)
    got = make_norm("zero_centred_rms", 0.25)().apply({"params": {"scale": scale}}, x)
    np.testing.assert_allclose(got, x / root_mean_square * (1 + scale), rtol=1e-5, atol=1e-5)
    centred = np.asarray(x) - np.asarray(x).mean(-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 0.25)
    got = make_norm("layer", 0.25)().apply({"params": {"scale": scale, "bias": bias}}, x)
    np.testing.assert_allclose(got, centred / deviation * scale + bias, rtol=1e-5, atol=1e-5)
    got = make_norm("layer_without_bias", 0.25)().apply({"params": {"scale": scale}}, x)
    np.testing.assert_allclose(got, centred / deviation * scale, rtol=1e-5, atol=1e-5)
    assert make_norm("none", 0.25)().apply({"params": {}}, x) is x


@pytest.mark.parametrize("name", [name for name in NORMS if name != "none"])
def test_norms_forget_the_scale_and_keep_the_dtype(name):
    module, x = make_norm(name, 1e-6)(), random(4, 64)
    parameters = module.init(jax.random.key(0), x)
    normed = module.apply(parameters, x)
    np.testing.assert_allclose((normed**2).mean(-1), 1.0, rtol=1e-3)
    np.testing.assert_allclose(module.apply(parameters, 1000 * x), normed, rtol=1e-3, atol=1e-4)
    # 300² overflows half precision and loses bits in bfloat16: the inside is float32.
    wide = module.apply(parameters, (300 * x).astype(jnp.bfloat16))
    assert wide.dtype == jnp.bfloat16
    np.testing.assert_allclose(wide.astype(jnp.float32), normed, atol=0.03)


@pytest.mark.parametrize("inputs, outputs", [(5, 3), (3, 5), (4, 4)])
def test_kernel_gradients_do_not_depend_on_which_factor_is_wider(inputs, outputs):
    x, kernel, weights = random(7, inputs), random(inputs, outputs, seed=1), random(7, outputs, seed=2)
    wanted = jax.grad(lambda x, kernel: jnp.vdot(x @ kernel, weights), (0, 1))(x, kernel)
    found = jax.jit(jax.grad(lambda x, kernel: jnp.vdot(product(x, kernel), weights), (0, 1)))(x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, wanted)


def test_a_kernel_gradient_is_summed_in_float32():
    ones = jnp.ones((4096, 1), jnp.bfloat16)
    assert sum_of_outer(ones, ones).dtype == jnp.float32
    assert sum_of_outer(ones, ones) == 4096

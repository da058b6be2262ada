"""Dropless experts against a dense loop over experts, values and gradients; ragged products against rows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.experts import Dropless
from models.experts.experts import Groups
from models.experts.ragged import in_blocks, in_groups, ragged_product
from tests.models.experts.mixtures import expert, layer, parameters_of_layer, probabilities, run, tokens
from tests.models.samples import compiled, random, relative_error

MIXTURES = {
    "two of four": (Dropless(count=4), "reglu", True),
    "one of three, two shared": (Dropless(count=3, top_k=1, weights="probability", shared=2), "relu", False),
    "all": (Dropless(count=3, top_k=3, shared=1), "reglu", False),
}


def loop(mixture, parameters, x):
    """Token by token in float64, each through its own experts."""
    p, wanted = probabilities(parameters, x), np.zeros(x.shape)
    for place in np.ndindex(x.shape[:2]):
        chosen = np.argsort(-p[place])[: mixture.top_k]
        weights = p[place][chosen] / (p[place][chosen].sum() if mixture.weights == "renormalized" else 1)
        token = np.asarray(x[place], np.float64)
        wanted[place] = sum(w * expert(parameters, e, token) for w, e in zip(weights, chosen, strict=True))
        if mixture.shared:
            wanted[place] += expert(parameters, None, token)
    return wanted


@pytest.mark.parametrize(("mixture", "name", "bias"), MIXTURES.values(), ids=MIXTURES)
def test_it_equals_a_loop_over_experts(mixture, name, bias):
    module, x = layer(mixture, name, bias), tokens()
    parameters = parameters_of_layer(module)
    got, facts = run(module, parameters, x)
    assert relative_error(got, loop(mixture, parameters, x)) < 1e-5
    assert facts["dropped_share"] == 0 and facts["expert_load"].sum() == pytest.approx(1)
    wanted = mixture.balance_loss * facts["balance_loss"] + mixture.router_z_loss * facts["router_z_loss"]
    assert facts["loss"] == pytest.approx(wanted)


def test_gradients_equal_those_of_every_expert_on_every_token():
    """Dense in jax: all experts on all tokens, weighted by what the router gives them, mostly zeros."""
    mixture, x, weight = Dropless(count=4), tokens(), random(2, 8, 6, seed=9)
    module = layer(mixture, "reglu", True)

    def dense(parameters, x):
        p = jax.nn.softmax(x @ parameters["router"]["kernel"])
        kept = p >= jnp.sort(p, axis=-1)[..., -2:-1]
        p = jnp.where(kept, p, 0) / jnp.where(kept, p, 0).sum(-1, keepdims=True)
        part = parameters["experts"]

        def linear(name, x, spec):
            return jnp.einsum(spec, x, part[name]["kernel"]) + part[name]["bias"]

        up, gate = (linear(name, x, "bli,eio->bleo") for name in ("up", "gate"))
        y = linear("output", jax.nn.relu(gate) * up, "blei,eio->bleo")
        return jnp.einsum("ble,bled->bld", p, y)

    def sparse(parameters, x):
        return module.apply({"params": parameters}, x, jnp.ones((2, 8), bool))

    def gradient(function):
        objective = compiled(jax.grad(lambda parameters, x: jnp.vdot(function(parameters, x), weight), (0, 1)))
        return objective(parameters_of_layer(module), x)

    assert relative_error(gradient(sparse), gradient(dense)) < 1e-5


@pytest.mark.parametrize("sizes", [(3, 0, 5, 1), (0, 0, 9, 0), (2, 2, 2, 3), (0, 1, 0, 0)])
def test_ragged_products_are_those_of_each_row_whatever_the_way(sizes):
    rows = sum(sizes)
    owner = np.repeat(np.arange(4), sizes)
    x, kernel, weight = random(rows, 5), random(4, 5, 3, seed=1), random(rows, 3, seed=2)
    groups = Groups(jnp.asarray(owner), jnp.asarray(sizes, jnp.int32))
    wanted = np.stack([np.asarray(x, np.float64)[m] @ np.asarray(kernel)[owner[m]] for m in range(rows)])
    d_x = np.stack([np.asarray(kernel, np.float64)[owner[m]] @ np.asarray(weight)[m] for m in range(rows)])
    d_kernel = np.zeros((4, 5, 3))
    for m in range(rows):
        d_kernel[owner[m]] += np.outer(x[m], weight[m])

    @compiled
    def every_way(x, kernel):
        ways = (ragged_product, in_blocks, in_groups)
        return [jax.vjp(lambda x, kernel, way=way: way(x, kernel, groups), x, kernel)[0] for way in ways], [
            jax.vjp(lambda x, kernel, way=way: way(x, kernel, groups), x, kernel)[1](weight) for way in ways
        ]

    values, gradients = every_way(x, kernel)
    for value, gradient in zip(values, gradients, strict=True):
        assert relative_error(value, wanted) < 1e-5
        assert relative_error(gradient, (d_x, d_kernel)) < 1e-5


def test_a_token_depends_on_itself_alone():
    module, x = layer(Dropless(count=4)), tokens()
    parameters = parameters_of_layer(module)
    apart, _ = run(module, parameters, x.reshape(16, 1, 6))
    together, _ = run(module, parameters, x)
    np.testing.assert_allclose(together.reshape(16, 1, 6), apart, rtol=1e-4, atol=1e-5)


def test_bfloat16_routes_by_float32():
    """The same experts are chosen, and the output is off by what rounding of kernels and activations gives."""
    mixture, x = Dropless(count=4), tokens().astype(jnp.bfloat16).astype(jnp.float32)
    exact = layer(mixture)
    parameters = parameters_of_layer(exact)
    wanted, facts = run(exact, parameters, x)
    output, rounded = run(
        exact.clone(kind=dataclasses.replace(exact.kind, dtype=jnp.bfloat16)), parameters, x.astype(jnp.bfloat16)
    )
    assert output.dtype == jnp.bfloat16
    np.testing.assert_array_equal(rounded["expert_load"], facts["expert_load"])
    assert 1e-4 < relative_error(output, wanted) < 0.03

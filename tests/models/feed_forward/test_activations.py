"""Every activation against its formula in float64, and its slope."""

import math

import jax
import numpy as np
import pytest

from models.feed_forward import ACTIVATIONS, gated
from tests.models.samples import relative_error

X = np.linspace(-6, 6, 241)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


# Of those that gate, of the gate.
FORMULAS = {
    "relu": lambda x: np.maximum(x, 0),
    "squared_relu": lambda x: np.maximum(x, 0) ** 2,
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "gelu": tanh_gelu,
    "gelu_exact": lambda x: x * np.array([(1 + math.erf(value / math.sqrt(2))) / 2 for value in x]),
    "silu": lambda x: x * sigmoid(x),
    "glu": sigmoid,
    "reglu": lambda x: np.maximum(x, 0),
    "geglu": tanh_gelu,
    "swiglu": lambda x: x * sigmoid(x),
}


def test_every_activation_has_a_formula_here():
    assert set(FORMULAS) == set(ACTIVATIONS)
    assert {name for name in ACTIVATIONS if gated(name)} == {"glu", "reglu", "geglu", "swiglu"}


def test_they_follow_their_formulas_and_differ():
    @jax.jit
    def all_of_them(x):
        return {name: activation(x) for name, (activation, _) in ACTIVATIONS.items()}

    got = {name: np.asarray(y) for name, y in all_of_them(X.astype(np.float32)).items()}
    for name, formula in FORMULAS.items():
        assert relative_error(got[name], formula(X)) < 1e-6, name
    plain = [name for name in ACTIVATIONS if not gated(name)]
    for i, name in enumerate(plain):
        assert all(np.abs(got[name] - got[other]).max() > 1e-4 for other in plain[:i]), name


def test_slopes_are_those_of_the_formulas():
    """Also of those that are computed again in the backward pass."""

    @jax.jit
    def slopes(x):
        return {name: jax.vmap(jax.grad(activation))(x) for name, (activation, _) in ACTIVATIONS.items()}

    away = X[np.abs(X) > 0.01]  # from the kinks
    for name, got in slopes(away.astype(np.float32)).items():
        wanted = (FORMULAS[name](away + 1e-5) - FORMULAS[name](away - 1e-5)) / 2e-5
        assert np.abs(got - wanted).max() < 1e-4 * max(1, np.abs(wanted).max()), name


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_they_keep_the_dtype(name):
    shape = jax.eval_shape(ACTIVATIONS[name][0], jax.ShapeDtypeStruct((3,), "bfloat16"))
    assert shape.dtype == "bfloat16"

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.errors import InvalidInput
from models.positions.distance_function import FUNCTIONS, DistanceFunction, distance_function, resolve
from models.positions.scheme import ParameterSpec, Tile
from tests.models.samples import tokens_at
from train.configuration import from_config_dict, to_plain


def specs(heads: int) -> dict[str, ParameterSpec]:
    return {"strength": ParameterSpec((heads,), jax.nn.initializers.ones, ("heads",))}


@pytest.fixture
def registered(monkeypatch):
    """A learned function, registered for one test alone."""
    monkeypatch.setattr(FUNCTIONS, "_entries", dict(FUNCTIONS.items()))

    @distance_function("test root", layer_parameters=specs)
    def root(distance, heads, strength):
        return -strength[:, None, None, None] * jnp.sqrt(distance + 1)

    return root


@pytest.fixture
def module(monkeypatch):
    """A module of the user's, which can be imported by its name."""
    made = types.ModuleType("a_users_module")
    made.halved = lambda distance, heads: -distance[None] / (2.0 + jnp.arange(heads)[:, None, None, None])
    made.flat = lambda distance, heads: -distance
    made.number = 3
    monkeypatch.setitem(sys.modules, "a_users_module", made)
    return made


def bias(scheme: DistanceFunction, parameters) -> jax.Array:
    tokens = tokens_at([[0, 2, 9]])
    q = jnp.zeros((1, 2, 3, 4))
    return scheme.change_logits(parameters, jnp.zeros((1, 2, 3, 3)), Tile(q, q, tokens, tokens))


DISTANCE = np.array([[0, 0, 0], [2, 0, 0], [9, 7, 0]])  # later keys count as at distance 0


def test_a_function_by_its_path_adds_what_it_returns(module):
    got = bias(DistanceFunction("a_users_module:halved"), {})
    np.testing.assert_allclose(got, -np.stack([DISTANCE / 2, DISTANCE / 3])[None], rtol=1e-6)


def test_a_registered_function_learns_what_it_declares(registered):
    scheme = DistanceFunction("test root")
    assert scheme.layer_parameters(2, 4)["strength"].shape == (2,)
    parameters = {"strength": jnp.array([1.0, 3.0])}
    root = np.sqrt(DISTANCE + 1)
    np.testing.assert_allclose(bias(scheme, parameters), -np.stack([root, 3 * root])[None], rtol=1e-6)
    gradient = jax.grad(lambda p: bias(scheme, p).sum())(parameters)
    np.testing.assert_allclose(gradient["strength"], [-root.sum()] * 2, rtol=1e-6)


def test_a_learned_function_may_be_named_by_its_path_too(registered, module):
    module.root = registered
    scheme = DistanceFunction("a_users_module:root")
    assert set(scheme.layer_parameters(3, 4)) == {"strength"}


def test_it_is_saved_by_name_and_told_apart_by_it(module):
    scheme = DistanceFunction("a_users_module:halved")
    plain = {"name": "distance", "function": "a_users_module:halved", "index": {"name": "identity"}}
    assert to_plain(scheme) == plain
    assert from_config_dict(DistanceFunction, to_plain(scheme)) == scheme
    assert hash(scheme) == hash(DistanceFunction("a_users_module:halved")) and scheme != DistanceFunction()
    assert DistanceFunction().layer_parameters(4, 8) == {}


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("cubic", r"one of .*logarithm.*, or the path package\.module:name of a function$"),
        ("no_such_module:f", r"\(No module named 'no_such_module'\)$"),
        ("a_users_module:missing", r"\(module 'a_users_module' has no attribute 'missing'\)$"),
        ("a_users_module:number", r"; there is a int$"),
        ("a_users_module:", r"of a function$"),
        (":halved", r"of a function$"),
        ("..relative:f", r"of a function \(.*\)$"),
    ],
)
def test_what_is_no_function_is_refused_where_it_is_written(module, function, said):
    with pytest.raises(InvalidInput, match=f"^function = '{function}' is not allowed; it must be .*{said}"):
        DistanceFunction(function)


def test_a_wrong_shape_is_refused(module):
    with pytest.raises(InvalidInput, match=r"returns shape \(2, 1, 3, 3\) here, and not \(1, 3, 3\)$"):
        bias(DistanceFunction("a_users_module:flat"), {})


def test_names_are_found_before_paths():
    assert resolve("logarithm") is FUNCTIONS["logarithm"]

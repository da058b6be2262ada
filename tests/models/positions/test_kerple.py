import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.positions.kerple import KerpleLog, KerplePower, below_two, positive
from models.positions.scheme import Tile
from tests.models.samples import compiled, random, tokens_at


def fresh(scheme, name: str, heads: int = 4000) -> jax.Array:
    spec = scheme.layer_parameters(heads, 8)[name]
    return spec.initializer(jax.random.key(3), spec.shape, jnp.float32)


@pytest.mark.parametrize(
    ("scheme", "name", "bounded", "highest"),
    [
        (KerpleLog(), "r1", positive, 2.0),
        (KerpleLog(), "r2", positive, 1.0),
        (KerplePower(), "r1", positive, 1.0),
        (KerplePower(), "r2", below_two, 2.0),
    ],
)
def test_coefficients_start_uniform_within_their_bounds(scheme, name, bounded, highest):
    value = np.asarray(bounded(fresh(scheme, name)))
    assert value.min() >= 0.01 * (1 - 1e-5) and value.max() < highest
    np.testing.assert_allclose(np.quantile(value, [0.25, 0.5, 0.75]), highest * np.array([0.25, 0.5, 0.75]), atol=0.06)


@pytest.mark.parametrize("bounded", [positive, below_two])
def test_no_step_of_training_leaves_the_bounds(bounded):
    raw = jnp.linspace(-60.0, 60.0, 121)
    value, slope = compiled(jax.vmap(jax.value_and_grad(bounded)))(raw)
    assert (value > 0).all() and np.isfinite(slope).all() and (slope >= 0).all()
    assert bounded is positive or value.max() <= 2


def test_power_of_a_distance_of_zero_is_zero_and_has_no_gradient():
    tokens, q = tokens_at([[5, 5]]), random(1, 2, 2, 4)
    tile = Tile(q, q, tokens, tokens)

    def changed(parameters):
        return KerplePower().change_logits(parameters, jnp.zeros((1, 2, 2, 2)), tile)

    parameters = {"r1": jnp.array([0.3, -2.0]), "r2": jnp.array([-8.0, 0.4])}
    np.testing.assert_array_equal(compiled(changed)(parameters), 0.0)
    gradient = compiled(jax.grad(lambda parameters: changed(parameters).sum()))(parameters)
    np.testing.assert_array_equal(gradient["r1"], 0.0)
    np.testing.assert_array_equal(gradient["r2"], 0.0)


@pytest.mark.parametrize("scheme", [KerpleLog(), KerplePower()], ids=["log", "power"])
def test_farther_keys_never_gain(scheme):
    tokens, q = tokens_at([np.arange(300)]), jnp.zeros((1, 3, 300, 2))
    parameters = {"r1": random(3, seed=1), "r2": random(3, seed=2)}
    last = scheme.change_logits(parameters, jnp.zeros((1, 3, 300, 300)), Tile(q, q, tokens, tokens))[0, :, -1]
    assert (np.diff(last) > 0).all()
    np.testing.assert_array_equal(last[:, -1], 0.0)

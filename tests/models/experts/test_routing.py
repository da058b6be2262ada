"""What a router decides and says, against formulas in float64; padding says nothing."""

import jax.numpy as jnp
import numpy as np
import pytest

from models.errors import InvalidInput
from models.experts import Dropless, TokenChoice
from models.experts.routing import WEIGHTS, balance_loss, choose, load, router_entropy, router_z_loss
from tests.models.samples import random

LOGITS = 2 * random(2, 7, 5, seed=1)
REAL = np.ones((2, 7), bool)


def softmax(logits):
    weights = np.exp(np.asarray(logits, np.float64))
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("top_k", [2, 3, 5])
def test_a_token_takes_the_experts_of_its_largest_logits(top_k, weights):
    routing = choose(LOGITS, top_k, weights)
    wanted = np.argsort(-np.asarray(LOGITS), axis=-1)[..., :top_k]
    np.testing.assert_array_equal(routing.expert_BxLxK, wanted)
    chosen = np.take_along_axis(softmax(LOGITS), wanted, -1)
    if weights == "renormalized":
        chosen /= chosen.sum(-1, keepdims=True)
    np.testing.assert_allclose(routing.weight_BxLxK, chosen, rtol=1e-5)
    np.testing.assert_allclose(routing.probability_BxLxE, softmax(LOGITS), rtol=1e-5)


def test_losses_and_metrics_follow_their_formulas():
    p, routing = softmax(LOGITS), choose(LOGITS, 2, "probability")
    counts = np.bincount(np.asarray(routing.expert_BxLxK).ravel(), minlength=5) / (2 * 7 * 2)
    got = load(routing.expert_BxLxK, 5, REAL)
    np.testing.assert_allclose(got, counts, rtol=1e-6)
    np.testing.assert_allclose(balance_loss(got, p, REAL), 5 * (counts * p.mean((0, 1))).sum(), rtol=1e-5)
    log_z = np.log(np.exp(np.asarray(LOGITS, np.float64)).sum(-1))
    np.testing.assert_allclose(router_z_loss(LOGITS, REAL), (log_z**2).mean(), rtol=1e-5)
    np.testing.assert_allclose(router_entropy(LOGITS, REAL), -(p * np.log(p)).sum(-1).mean(), rtol=1e-5)


def test_the_balance_loss_is_least_where_load_and_probability_are_uniform():
    """Of a load that follows the probabilities, as it does where tokens choose by them."""
    uniform = np.full(4, 0.25)
    rng = np.random.default_rng(0)
    loads = [uniform, *rng.dirichlet(np.ones(4), 30)]
    losses = [float(balance_loss(jnp.asarray(p), jnp.tile(p, (2, 3, 1)), np.ones((2, 3), bool))) for p in loads]
    assert losses[0] == pytest.approx(1) and min(losses[1:]) > 1
    collapsed = np.eye(4)[0]
    loss = balance_loss(jnp.asarray(collapsed), jnp.tile(collapsed, (2, 3, 1)), np.ones((2, 3), bool))
    assert float(loss) == pytest.approx(4)
    assert float(router_entropy(jnp.zeros((2, 3, 4)), np.ones((2, 3), bool))) == pytest.approx(np.log(4))


def test_padding_says_nothing():
    real = REAL.copy()
    real[0, 5:], real[1] = False, False
    alone = np.asarray(LOGITS)[:1, :5]

    def facts(logits, real):
        routing = choose(jnp.asarray(logits), 2, "probability")
        shares = load(routing.expert_BxLxK, 5, real)
        balance = balance_loss(shares, routing.probability_BxLxE, real)
        return [*shares, balance, router_z_loss(logits, real), router_entropy(logits, real)]

    np.testing.assert_allclose(facts(LOGITS, real), facts(alone, np.ones((1, 5), bool)), rtol=1e-5)
    assert not np.any(facts(LOGITS, np.zeros_like(real)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 1}, "count = 1 … at least 2; 'none' is the name of one dense layer"),
        ({"width": 0}, "width = 0 … at least 1"),
        ({"shared": -1}, "shared = -1 … at least 0"),
        ({"top_k": 0}, "top_k = 0 … 1 to count = 8"),
        ({"top_k": 9}, "top_k = 9 … 1 to count = 8"),
        ({"weights": "sigmoid"}, "weights = 'sigmoid' … one of renormalized, probability"),
        (
            {"top_k": 1},
            "weights = 'renormalized' … 'probability' where top_k = 1: one renormalized weight is always 1",
        ),
        ({"balance_loss": -1.0}, "balance_loss = -1.0 … at least 0 (0 is off)"),
        ({"router_z_loss": float("nan")}, "router_z_loss = nan … at least 0 (0 is off)"),
        ({"capacity_factor": 0.0}, "capacity_factor = 0.0 … a finite number above 0"),
    ],
)
def test_a_field_out_of_range_is_named(fields, message):
    for kind in (TokenChoice, Dropless):
        if kind is Dropless and "capacity_factor" in fields:
            continue
        with pytest.raises(InvalidInput) as refused:
            kind(**fields)
        assert str(refused.value) == message.replace("…", "is not allowed; it must be")

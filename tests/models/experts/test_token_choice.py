"""Capacities, counted by hand: who finds room, who does not, and that nobody later or elsewhere decides it."""

import jax.numpy as jnp
import numpy as np
import pytest

from models.experts import Dropless, TokenChoice
from models.experts.token_choice import places
from tests.models.experts.mixtures import WIDTH, expert, layer, parameters_of_layer, probabilities, run, tokens

# Two experts, both taken by every token; which comes first says the sign of the first feature. Room for three tokens of
# four: 0.75 · 2 · 4 / 2.
PAIR = TokenChoice(count=2, capacity_factor=0.75)
ONE = TokenChoice(count=2, top_k=1, weights="probability", capacity_factor=0.75)  # room for two of five


def routed_by_sign(mixture):
    """A layer whose router sends tokens with a positive first feature to expert 0, others to expert 1; and tokens."""
    module = layer(mixture, "relu", False)
    router = np.zeros((WIDTH, 2), np.float32)
    router[0] = [1, -1]
    return module, parameters_of_layer(module) | {"router": {"kernel": jnp.asarray(router)}}


def signs(*rows):
    x = np.array(tokens(len(rows), len(rows[0])))
    x[..., 0] = 2.0 * np.array(rows)
    return jnp.asarray(x)


@pytest.mark.parametrize(
    ("fields", "length", "capacity"),
    [
        ({}, 128, 40),  # 1.25 · 2 · 128 / 8
        ({}, 1, 1),
        ({"capacity_factor": 1.1, "top_k": 2, "count": 4}, 20, 11),
        ({"capacity_factor": 1.0, "top_k": 2, "count": 3}, 4, 3),  # 2.67, rounded up
        ({"capacity_factor": 99.0}, 16, 16),  # a token takes an expert once
    ],
)
def test_capacity_is_rounded_up(fields, length, capacity):
    assert TokenChoice(**fields).capacity(length) == capacity


def test_a_hand_made_case():
    """Five tokens a row choose one of two experts with room for two each."""
    assert ONE.capacity(5) == 2
    module, parameters = routed_by_sign(ONE)
    x = signs([1, 1, -1, 1, 1], [-1, 1, -1, -1, 1])
    taken = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 0, 1]], bool)
    got, facts = run(module, parameters, x)
    chosen, p = (np.asarray(x[..., 0]) < 0).astype(int), probabilities(parameters, x)
    for place in np.ndindex(2, 5):
        wanted = p[place][chosen[place]] * expert(parameters, chosen[place], np.asarray(x[place], np.float64))
        np.testing.assert_allclose(got[place], wanted if taken[place] else 0 * wanted, rtol=1e-4, atol=1e-5)
    assert facts["dropped_share"] == pytest.approx(3 / 10)
    np.testing.assert_allclose(facts["expert_load"], [6 / 10, 4 / 10])  # as chosen, before any is dropped


def test_room_goes_by_position_and_then_by_choice():
    """An earlier token's second choice has room before a later one's first."""
    assert PAIR.capacity(4) == 3
    module, parameters = routed_by_sign(PAIR)
    x = signs([-1, -1, -1, 1])  # the last one's first choice, expert 0, is full of second choices
    got, facts = run(module, parameters, x)
    assert facts["dropped_share"] == pytest.approx(2 / 8)
    assert (got[0, 3] == 0).all() and np.abs(got[0, :3]).min(axis=-1).all()
    np.testing.assert_array_equal(
        places(jnp.array([[1, 0, 1, 0, 0, 1]]), 2, jnp.array([[True] * 4 + [False] + [True]])), [[0, 0, 1, 1, 2, 2]]
    )


def test_later_tokens_and_other_rows_decide_nothing():
    mixture = TokenChoice(count=4, capacity_factor=0.5)
    module, x = layer(mixture), tokens(2, 12)
    parameters = parameters_of_layer(module)
    got, facts = run(module, parameters, x)
    assert 0.1 < facts["dropped_share"] < 0.9
    for at in (3, 7):
        changed = jnp.concatenate([x[:, :at], tokens(2, 12, seed=8)[:, at:]], axis=1)
        there, _ = run(module, parameters, changed)
        np.testing.assert_allclose(there[:, :at], got[:, :at], rtol=1e-4, atol=1e-5)
        assert (np.abs(there[:, at:] - got[:, at:]).max() > 0.1).all()
    elsewhere, _ = run(module, parameters, x.at[1].set(tokens(1, 12, seed=8)[0]))
    np.testing.assert_allclose(elsewhere[0], got[0], rtol=1e-4, atol=1e-5)


def test_padding_takes_no_room_and_is_not_counted():
    module, parameters = routed_by_sign(ONE)
    x = signs([1, 1, 1, 1, -1])
    padded = np.array([[False, False, True, True, True]])
    got, facts = run(module, parameters, x, padded)
    assert facts["dropped_share"] == 0 and np.abs(got[0, 2:]).max(axis=-1).all()
    np.testing.assert_allclose(facts["expert_load"], [2 / 3, 1 / 3])
    assert run(module, parameters, x)[1]["dropped_share"] == pytest.approx(2 / 5)
    assert run(module, parameters, x, np.zeros((1, 5), bool))[1]["dropped_share"] == 0


def test_with_room_for_all_or_outside_training_it_is_dropless():
    fields = {"count": 4, "shared": 1}
    x, wanted = tokens(), layer(Dropless(**fields))
    parameters = parameters_of_layer(wanted)
    output, facts = run(wanted, parameters, x)
    for mixture, training in ((TokenChoice(capacity_factor=4.0, **fields), True), (TokenChoice(**fields), False)):
        got, said = run(layer(mixture, training=training), parameters, x)
        np.testing.assert_allclose(got, output, rtol=1e-4, atol=1e-5)
        assert said["dropped_share"] == 0 and said["balance_loss"] == facts["balance_loss"]

"""Mixtures that see a whole row, against their formulas in float64; what they do to a row's earlier tokens."""

import jax.numpy as jnp
import numpy as np
import pytest

from models.errors import InvalidInput
from models.experts import ExpertChoice, Experts, Soft
from tests.models.experts.mixtures import expert, layer, parameters_of_layer, probabilities, run, tokens

CHOICE = ExpertChoice(count=4, capacity_factor=1.5, shared=1)
SOFT = Soft(count=3, slots=2)


def of_choice(parameters, x, real):
    """Row by row: each expert on its best tokens."""
    p, output = probabilities(parameters, x), np.zeros(x.shape)
    for row in range(len(x)):
        for e in range(CHOICE.count):
            scores = np.where(real[row], p[row, :, e], 0)
            for t in np.argsort(-scores)[: CHOICE.capacity(x.shape[1])]:
                output[row, t] += scores[t] * expert(parameters, e, np.asarray(x[row, t], np.float64))
        for t in range(x.shape[1]):
            output[row, t] += expert(parameters, None, np.asarray(x[row, t], np.float64))
    return output


def of_soft(parameters, x, real):
    x = np.asarray(x, np.float64)
    weights = np.exp(x @ np.asarray(parameters["router"]["kernel"], np.float64))
    seen = weights * real[..., None]
    dispatch, combine = seen / seen.sum(1, keepdims=True), weights / weights.sum(2, keepdims=True)
    slots = np.einsum("bls,bld->bsd", dispatch, x)
    made = np.stack([[expert(parameters, s // SOFT.slots, slots[b, s]) for s in range(6)] for b in range(len(x))])
    return np.einsum("bls,bsd->bld", combine, made)


@pytest.mark.parametrize(("mixture", "formula"), [(CHOICE, of_choice), (SOFT, of_soft)], ids=["choice", "soft"])
def test_they_follow_their_formulas_and_look_ahead(mixture, formula):
    module, x = layer(mixture), tokens()
    parameters = parameters_of_layer(module)
    real = np.arange(8)[None] < np.array([[8], [6]])
    got, _ = run(module, parameters, x, real)
    wanted = formula(parameters, x, real)
    np.testing.assert_allclose(got[real], wanted[real], rtol=1e-4, atol=1e-4)
    padding, _ = run(module, parameters, jnp.where(real[..., None], x, 7.0), real)
    np.testing.assert_allclose(padding[real], got[real], rtol=1e-4, atol=1e-4)
    later, _ = run(module, parameters, x.at[0, 4:].set(tokens(seed=8)[0, 4:]), real)
    assert np.abs(later[0, :4] - got[0, :4]).max() > 1e-2 and not mixture.causal


def test_every_mixture_says_whether_it_looks_ahead():
    assert {name for name, kind in Experts.registry.items() if not kind.causal} == {"expert_choice", "soft"}


def test_their_cost_per_token():
    assert CHOICE.capacity(8) == 3 and CHOICE.experts_per_token(8) == 1.5
    assert ExpertChoice(count=4, capacity_factor=1.0).experts_per_token(6) == 2 * 4 / 6  # 1.5, rounded up
    assert SOFT.experts_per_token(12) == 0.5 and SOFT.router_outputs() == 6


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (ExpertChoice, {"capacity_factor": 9.0}, "capacity_factor = 9.0 … above 0 and at most count = 8"),
        (ExpertChoice, {"capacity_factor": 0.0}, "capacity_factor = 0.0 … above 0 and at most count = 8"),
        (Soft, {"slots": 0}, "slots = 0 … at least 1"),
    ],
)
def test_a_field_out_of_range_is_named(kind, fields, message):
    with pytest.raises(InvalidInput) as refused:
        kind(**fields)
    assert str(refused.value) == message.replace("…", "is not allowed; it must be")

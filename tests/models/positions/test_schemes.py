"""What holds across the family."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.errors import InvalidInput
from models.positions import DynamicNTK, PositionScheme, Rotary, Tile, Tokens, YaRN
from models.positions.index import Clipped

RELATIVE = {
    "none": PositionScheme.registry["none"](),
    "alibi": PositionScheme.registry["alibi"](),
    "t5": PositionScheme.registry["t5"](buckets=8, max_distance=16),
    "rope": Rotary(),
    "rope interleaved yarn": Rotary(layout="interleaved", scaling=YaRN(factor=4.0, original_length=8)),
}


def logits(scheme: PositionScheme, positions: np.ndarray, dtype=jnp.float32) -> jax.Array:
    """Logits [2, 4, L, L] of fixed random queries and keys at the given positions [2, L]."""
    rng = np.random.default_rng(3)
    length = positions.shape[1]
    q = jnp.asarray(rng.normal(size=(2, length, 4, 8)), dtype)
    k = jnp.asarray(rng.normal(size=(2, length, 2, 8)), dtype)
    parameters = {
        name: jnp.asarray(rng.normal(size=spec.shape), jnp.float32)
        for name, spec in scheme.layer_parameters(4, 8).items()
    }
    at = jnp.asarray(positions, jnp.int32)
    q, k = (jnp.swapaxes(scheme.rotate(x, at), 1, 2) for x in (q, k))
    tokens = Tokens(at, jnp.zeros_like(at))
    tile = Tile(q, k, tokens, tokens)
    return scheme.change_logits(parameters, scheme.score(parameters, tile), tile)


def test_the_registry_holds_the_schemes_by_their_names():
    assert {"none", "sinusoidal", "learned", "t5", "alibi", "rope"} <= set(PositionScheme.registry)
    with pytest.raises(InvalidInput, match=r"^position\.name = 'rotary' is not allowed; it must be one of .*alibi"):
        PositionScheme.registry["rotary"]


@pytest.mark.parametrize("scheme", RELATIVE.values(), ids=RELATIVE)
def test_relative_schemes_do_not_notice_a_common_shift(scheme):
    positions = np.array([[0, 1, 2, 5, 9, 30], [3, 4, 8, 15, 16, 20]])
    here, there = logits(scheme, positions), logits(scheme, positions + np.array([[117], [1009]]))
    assert here.dtype == jnp.float32 and here.shape == (2, 4, 6, 6)
    np.testing.assert_allclose(there, here, atol=2e-3)


@pytest.mark.parametrize("name", ["alibi", "t5", "rope"])
def test_they_do_notice_a_change_of_distances(name):
    positions = np.array([[0, 1, 2], [0, 1, 2]])
    assert np.abs(logits(RELATIVE[name], positions * 3) - logits(RELATIVE[name], positions)).max() > 0.1


def test_only_schemes_without_a_bias_leave_logits_to_a_fused_kernel():
    plain = {name for name, cls in PositionScheme.registry.items() if cls().plain_logits()}
    assert plain == {"none", "sinusoidal", "learned", "base_n", "rope"}
    assert not Rotary(scaling=DynamicNTK()).plain_logits() and not Rotary(index=Clipped(3)).plain_logits()


@pytest.mark.parametrize("name", PositionScheme.registry)
def test_schemes_are_hashable(name):
    assert hash(PositionScheme.registry[name]()) == hash(PositionScheme.registry[name]())

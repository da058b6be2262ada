import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidInput
from models.positions.digits import BaseN
from tests.models.samples import compiled

compiled_embed = compiled(BaseN.embed, static_argnums=(0, 3))


@given(st.sampled_from([2, 3, 10]), st.sampled_from([1, 3]), st.integers(0, 10**6))
def test_learned_digits_are_looked_up_by_place_and_summed(base, digits, number):
    position = number % base**digits
    scheme = BaseN(base=base, digits=digits)
    shape = scheme.embedding_parameters(3)["table"].shape
    table = np.random.default_rng(number).normal(size=shape).astype(np.float32)
    got = compiled_embed(scheme, {"table": jnp.asarray(table)}, jnp.array([[position]]), 3)
    written = np.base_repr(position, base).zfill(digits)[::-1]
    wanted = sum(table[place, int(digit, base)] for place, digit in enumerate(written))
    np.testing.assert_allclose(got[0, 0], wanted, rtol=1e-5, atol=1e-6)
    assert got.dtype == jnp.float32 and shape == (digits, base, 3)


def test_sinusoidal_digits_fill_a_part_of_the_width_each():
    got = np.asarray(BaseN(base=10, digits=2, kind="sinusoidal").embed({}, jnp.array([[47, 70]]), 8))[0]
    slow = 10.0**-0.5
    for row, (low, high) in enumerate([(7, 4), (0, 7)]):
        wanted = [f(d * w) for d in (low, high) for f in (np.sin, np.cos) for w in (1.0, slow)]
        np.testing.assert_allclose(got[row], wanted, atol=1e-6)


@pytest.mark.parametrize("kind", ["learned", "sinusoidal"])
def test_every_position_below_the_maximum_differs_and_none_is_defined_beyond(kind):
    scheme = BaseN(base=3, digits=3, kind=kind)
    assert scheme.maximum_length() == 27
    parameters = {
        name: spec.initializer(jax.random.key(0), spec.shape, jnp.float32)
        for name, spec in scheme.embedding_parameters(6).items()
    }
    got = np.asarray(compiled_embed(scheme, parameters, jnp.arange(-1, 28)[None], 6))[0]
    assert np.isnan(got[[0, -1]]).all()
    apart = np.abs(got[1:-1, None] - got[None, 1:-1]).max(-1)
    assert (apart[~np.eye(27, dtype=bool)] > 1e-3).all()


def test_tables_are_shared_by_positions_with_a_common_digit():
    scheme = BaseN(base=10, digits=2)

    def embedded(table):
        return scheme.embed({"table": table}, jnp.array([[3, 13, 23]]), 2).sum()

    used = compiled(jax.grad(embedded))(jnp.zeros((2, 10, 2)))
    np.testing.assert_array_equal(used[0, :, 0], np.eye(10)[3] * 3)
    np.testing.assert_array_equal(used[1, :, 0], [1, 1, 1] + [0] * 7)


def test_refuses_what_cannot_be():
    with pytest.raises(InvalidInput, match=r"^base = 1 is not allowed; it must be at least 2$"):
        BaseN(base=1)
    with pytest.raises(InvalidInput, match=r"^digits = 0 is not allowed"):
        BaseN(digits=0)
    with pytest.raises(InvalidInput, match=r"^digits = 10 is not allowed; it must be so few that"):
        BaseN(base=10, digits=10)
    with pytest.raises(InvalidInput, match=r"^kind = 'cosine' is not allowed; it must be one of learned, sinusoidal$"):
        BaseN(kind="cosine")
    with pytest.raises(InvalidInput, match=r"^width = 12 is not allowed; it must be a multiple of 8, two per digit"):
        BaseN(kind="sinusoidal").embed({}, jnp.zeros((1, 1), jnp.int32), 12)

"""Relative schemes against themselves, every token so many positions further: of one layer, all at once and decoded.

In float32 nothing may change but roundings. What bfloat16 changes is shown in the table and not held against a number:
it is the error of rounded vectors, and under rounded angles that of positions which are no longer told apart.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from models.cache import init_cache, occupy
from models.config import ModelConfig
from models.positions import FIRE, PositionScheme, Rotary
from tests.models.samples import LENGTH, SCHEMES, TINY, compiled, parameters_of, random, tokens_at

SHIFT = 500
REFERENCE = f"itself, {SHIFT} positions further"
# What is added to embeddings has no distances.
ABSOLUTE = ("sinusoidal", "learned", "base_n")
RELATIVE = {name: SCHEMES[name] for name in PositionScheme.registry if name not in ABSOLUTE}
# A query beyond its threshold notices where it stands, by design.
RELATIVE["fire"] = FIRE(threshold=10**6)


@functools.partial(compiled, static_argnums=0)
def outputs(config: ModelConfig, parameters, x_BxLxD, position_BxL) -> tuple[jax.Array, jax.Array]:
    """Of one layer: the output at every token, and that of the last one decoded after a cache of the others."""
    module = config.mixer.module(config, 0)
    run = functools.partial(module.apply, {"params": parameters})
    whole, _ = run(x_BxLxD, tokens_at(position_BxL), None, None, None)
    before, last = tokens_at(position_BxL[:, :-1]), tokens_at(position_BxL[:, -1:])
    empty = init_cache(config, 1, LENGTH)
    cache = occupy(empty, before)
    _, layer = run(x_BxLxD[:, :-1], before, empty.layers[0], cache.tokens, empty.filled)
    decoded, _ = run(x_BxLxD[:, -1:], last, layer, occupy(cache, last).tokens, cache.filled)
    return whole, decoded


def shifted_and_not(scheme: PositionScheme, dtype: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """The outputs in `dtype`, `SHIFT` positions further and where they were, as float32."""
    config = TINY.replace(layers=1, layer_loop="unroll", position=scheme, dtype=dtype)
    parameters = parameters_of(config)["unit_0"]["layer_0"]["attention"]
    x, position = random(1, LENGTH, config.width).astype(dtype), np.arange(LENGTH)[None]
    there, here = (outputs(config, parameters, x, at) for at in (position + SHIFT, position))
    return [(np.asarray(a, np.float32), np.asarray(b, np.float32)) for a, b in zip(there, here, strict=True)]


def shifts(dtype: str, found: dict[str, PositionScheme]) -> list:
    """Parameters of a test, with the row that each gives the table."""
    return [
        pytest.param(scheme, id=name, marks=pytest.mark.conformance(f"position {scheme.name}", reference=reference))
        for name, scheme in found.items()
        for reference in [f"{REFERENCE}: {dtype}"]
    ]


@pytest.mark.parametrize("scheme", shifts("float32", RELATIVE))
def test_a_shift_changes_nothing_in_float32(conforms, scheme):
    for there, here in shifted_and_not(scheme, "float32"):
        conforms(there, here, tolerance=1e-5)


@pytest.mark.parametrize("scheme", shifts("bfloat16", RELATIVE))
def test_what_a_shift_changes_in_bfloat16(shows, scheme):
    for there, here in shifted_and_not(scheme, "bfloat16"):
        shows(there, here)


@pytest.mark.parametrize("scheme", shifts("bfloat16, its angles too", {"rope": Rotary(angles="bfloat16")}))
def test_what_a_shift_changes_under_angles_of_bfloat16(shows, scheme):
    """Far more than the same vectors under exact angles."""
    rounded = shifted_and_not(scheme, "bfloat16")
    exact = shifted_and_not(dataclasses.replace(scheme, angles="float32"), "bfloat16")
    for (there, here), (exact_there, exact_here) in zip(rounded, exact, strict=True):
        shows(there, here)
        assert np.abs(there - here).max() > 3 * np.abs(exact_there - exact_here).max()

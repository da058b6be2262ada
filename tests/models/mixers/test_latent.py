"""What latent attention keeps, under every scheme that it takes; its formula is in the conformance tests."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention import Sliding
from models.mixers import LatentMixer
from models.mixers.latent import _learns_vectors
from models.positions import Rotary
from tests.models.samples import (
    LENGTH,
    SCHEMES,
    TINY,
    empty_cache,
    extend,
    full_logits,
    logits_in_halves,
    parameters_of,
    relative_error,
    text,
    tokens_at,
    whole,
)

MIXER = LatentMixer(rank=5, rotary_size=4, value_size=3)


def test_a_cache_holds_latents_and_one_rotary_part_whatever_the_heads():
    for heads, kv_heads in ((4, 2), (8, 8)):
        config = TINY.replace(mixer=MIXER, heads=heads, kv_heads=kv_heads, dtype="bfloat16")
        leaves = jax.tree.leaves(empty_cache(config, 3, 10).layers)
        assert sum(leaf.size for leaf in leaves) == config.layers * 3 * 10 * (5 + 4)
        assert {leaf.dtype for leaf in leaves} == {jnp.dtype("bfloat16")}


def test_sizes_follow_the_head_where_they_are_not_given():
    config = TINY.replace(mixer=LatentMixer(), head_size=10)
    (layer,) = empty_cache(config, 1, 7).layers
    assert layer.value_BxGxSxK.shape == (2, 1, 1, 7, 40) and layer.key_BxGxSxK.shape == (2, 1, 1, 7, 6)
    attention = parameters_of(config)["units"]["layer_0"]["attention"]
    assert attention["value"]["kernel"].shape == (2, 40, 4, 10)


# One of each way into the scores: rotated late, rotated once, by zones, decaying, gates, a bias.
@pytest.mark.parametrize("name", ["rope dynamic_ntk", "rope yarn", "rope grouped", "xpos", "forgetting", "t5"])
def test_decoding_over_latents_equals_keys_and_values_written_out(name):
    config = TINY.replace(layers=1, mixer=MIXER, position=SCHEMES[name])
    wanted = full_logits(config, parameters_of(config), text(2), whole(2))
    assert relative_error(logits_in_halves(config), wanted) < 1e-5


def test_tiles_and_a_rolling_cache():
    config = TINY.replace(layers=1, mixer=MIXER, position=Rotary(), span=Sliding(3))
    wanted = full_logits(config, parameters_of(config), text(2), whole(2))
    tiles = config.replace(attention="blockwise")
    assert relative_error(full_logits(tiles, parameters_of(config), text(2), whole(2)), wanted) < 1e-5
    cache, parts = empty_cache(tiles, 2), []
    assert cache.layers[0].key_BxGxSxK.shape[-2] == 3
    for start in range(0, LENGTH, 4):
        where = tokens_at(np.tile(np.arange(start, start + 4), (2, 1)))
        logits, cache = extend(tiles, parameters_of(config), cache, text(2)[:, start : start + 4], where)
        parts.append(logits)
    assert relative_error(np.concatenate(parts, axis=1), wanted) < 1e-5


def test_schemes_with_vectors_of_heads_are_told_from_others():
    assert {scheme.name for scheme in SCHEMES.values() if _learns_vectors(scheme)} == {"cope", "deberta", "shaw"}

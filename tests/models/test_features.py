"""Per-token features of a scheme: what a cache keeps of them, and that decoding goes on from there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention import Sliding
from models.cache import init_cache, occupy
from models.config import LayerConfig
from models.errors import InvalidInput
from models.positions.cope import CoPE
from models.positions.forgetting import Forgetting
from tests.models.samples import (
    LENGTH,
    TINY,
    empty_cache,
    extend,
    full_logits,
    parameters_of,
    relative_error,
    text,
    tokens_at,
    whole,
)

# A remainder of the pattern, and both kinds of content-dependent state: features, and sums over newer keys.
MIXED = TINY.replace(
    layers=3,
    position=Forgetting(),
    pattern=(LayerConfig(), LayerConfig(position=CoPE(max_position=3), span=Sliding(4))),
)


@pytest.mark.parametrize(("loop", "leading"), [("scan", [(1,), (1,), ()]), ("unroll", [(), (), ()])])
def test_a_cache_has_room_for_the_features_of_the_layers_that_make_them(loop, leading):
    cache = init_cache(MIXED.replace(layer_loop=loop, dtype="bfloat16"), 2, 7)
    shapes = [{name: (x.shape, x.dtype) for name, x in layer.features.items()} for layer in cache.layers]
    each = [{name: ((*first, 2, 7, 4), jnp.float32) for name in ("coarse", "fine")} for first in leading]
    assert shapes == [each[0], {}, each[2]]


def test_the_features_before_the_first_slot_are_zero():
    (layer, *_) = init_cache(MIXED.replace(layer_loop="unroll"), 2, 7).layers
    layer = jax.tree.map(lambda x: x + jnp.arange(7.0).reshape(7, 1), layer)
    assert not np.any(layer.last_features(jnp.array(0))["fine"])
    assert (np.asarray(layer.last_features(jnp.array(5))["fine"]) == 4).all()


def test_prefilling_in_chunks_with_padding_among_them():
    """The second row's first chunk is padded on the left, its last on the right."""
    words, cache, parts = np.asarray(text(2)), empty_cache(MIXED, 2), []
    places = np.array([np.arange(LENGTH), [-1, -1, 0, 1, 2, 3, 4, 5, 6, 7, -1, -1]])
    fed = np.where(places >= 0, np.take_along_axis(words, np.maximum(places, 0), axis=1), 0)
    for start in range(0, LENGTH, 4):
        here = places[:, start : start + 4]
        where = tokens_at(np.maximum(here, 0), np.where(here >= 0, 0, -1))
        logits, cache = extend(MIXED, parameters_of(MIXED), cache, fed[:, start : start + 4], where)
        parts.append(logits)
    got, wanted = np.concatenate(parts, axis=1), full_logits(MIXED, parameters_of(MIXED), words, whole(2))
    assert relative_error(got[0], wanted[0]) < 1e-5
    assert relative_error(got[1, 2:10], wanted[1, :8]) < 1e-5


def test_slots_in_use_are_not_overwritten():
    cache = occupy(init_cache(TINY, 1, 7), tokens_at([range(5)]))
    assert occupy(cache, tokens_at([[5, 6]])).filled == 7
    with pytest.raises(InvalidInput, match=r"^capacity = 7 is not allowed; it must be at least 8: 5 slots are in use"):
        occupy(cache, tokens_at([[5, 6, 7]]))
    # A compiled program does not know how many slots are in use when it is made.
    jax.eval_shape(occupy, cache, tokens_at([[5, 6, 7]]))

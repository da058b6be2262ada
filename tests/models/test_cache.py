"""What a cache holds: a slot for each token, of each layer, and who took it."""

import jax.numpy as jnp
import numpy as np
import pytest

from models.attention.visibility import Sinks, Sliding
from models.cache import init_cache, occupy
from models.config import LayerConfig
from models.errors import InvalidInput
from models.positions import ALiBi, CoPE, Learned
from tests.models.samples import TINY, empty_cache, extend, parameters_of, text, tokens_at

ROWS, CAPACITY = 3, 7
SLOTS = (ROWS, 2, CAPACITY, 6)  # key heads and head size of the tiny model
PATTERN = TINY.replace(layers=5, pattern=(LayerConfig(), LayerConfig(position=ALiBi())))


@pytest.mark.parametrize(
    ("config", "shapes"),
    [
        (TINY, [(2, *SLOTS)]),
        (TINY.replace(layer_loop="unroll"), [SLOTS] * 2),
        (PATTERN, [(2, *SLOTS), (2, *SLOTS), SLOTS]),
        (PATTERN.replace(layer_loop="unroll"), [SLOTS] * 5),
    ],
    ids=["scan", "unroll", "pattern scan", "pattern unroll"],
)
def test_an_empty_cache(config, shapes):
    cache = init_cache(config.replace(dtype="bfloat16"), ROWS, CAPACITY)
    assert [layer.key_BxGxSxK.shape for layer in cache.layers] == shapes
    assert [layer.value_BxGxSxK.shape for layer in cache.layers] == shapes
    assert cache.layers[0].key_BxGxSxK.dtype == jnp.bfloat16
    assert cache.capacity == CAPACITY and cache.filled == 0
    assert (np.asarray(cache.tokens.document) == -1).all()


def test_tokens_take_the_next_free_slots():
    cache = init_cache(TINY, ROWS, CAPACITY)
    cache = occupy(cache, tokens_at([[0, 1, 2]], [[0, 0, -1]]))
    cache = occupy(cache, tokens_at([[9], [8], [7]]))
    assert cache.filled == 4
    assert cache.tokens.position[:, :4].tolist() == [[0, 1, 2, 9], [0, 1, 2, 8], [0, 1, 2, 7]]
    assert cache.tokens.document.tolist() == [[0, 0, -1, 0, -1, -1, -1]] * ROWS


def test_a_capacity_that_cannot_work_is_refused():
    with pytest.raises(InvalidInput, match=r"^capacity = 7 is not allowed; it must be at least 8"):
        occupy(init_cache(TINY, ROWS, CAPACITY), tokens_at([range(8)]))
    with pytest.raises(InvalidInput, match=r"^capacity = 7 is not allowed; it must be at most 6: .*'learned'"):
        init_cache(TINY.replace(position=Learned(length=6)), ROWS, CAPACITY)


def test_a_layer_keeps_no_more_than_its_span_can_see():
    """In a pattern each place for itself; sums over newer keys need them all, in order."""
    pattern = (LayerConfig(span=Sinks(window=5, sinks=2)), LayerConfig(), LayerConfig(CoPE(), Sliding(5)))
    for loop in ("scan", "unroll"):
        cache = init_cache(TINY.replace(layers=3, pattern=pattern, layer_loop=loop), 2, 100)
        assert [layer.key_BxGxSxK.shape[-2] for layer in cache.layers] == [7, 100, 100]
    assert init_cache(TINY.replace(span=Sliding(5)), 2, 5).layers[0].key_BxGxSxK.shape[-2] == 5


def test_a_rolling_cache_holds_the_first_and_the_latest_tokens():
    config = TINY.replace(layers=1, span=Sinks(window=3, sinks=2), layer_loop="unroll")
    cache = empty_cache(config, 2)
    words, start = text(2), 0
    for length in (1, 4, 1, 2, 3):
        where = tokens_at(np.tile(np.arange(start, start + length), (2, 1)))
        _, cache = extend(config, parameters_of(config), cache, words[:, start : start + length], where)
        start += length
        position, document = (np.asarray(x) for x in (cache.layers[0].tokens.position, cache.layers[0].tokens.document))
        held = [sorted(position[row][document[row] >= 0]) for row in range(2)]
        assert held == [sorted({*range(min(2, start)), *range(max(0, start - 3), start)})] * 2

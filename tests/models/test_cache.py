"""What a cache holds: a slot for each token, of each layer, and who took it."""

import jax.numpy as jnp
import numpy as np
import pytest

from models.cache import init_cache, occupy
from models.config import LayerConfig
from models.errors import InvalidInput
from models.positions import ALiBi, Learned
from tests.models.samples import TINY, tokens_at

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

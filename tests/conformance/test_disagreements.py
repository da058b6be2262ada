"""Where papers, their code and those who cite them disagree: each difference is shown, and which side is followed here.

Those of RoPE's frequencies (the ramp of YaRN, its truncation, lengths, exponents) are in test_rope.py.
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

from models.attention.visibility import Sinks, visible
from models.positions import T5, ALiBi, NoPosition, Rotary, Sinusoidal, YaRN
from models.positions.alibi import slopes
from models.positions.index import Clipped, DualChunk, Reindexed, zoned_distance
from models.positions.scheme import contiguous_tokens
from models.positions.temperature import LogN, YaRNTemperature
from tests.conformance.layer import HEADS, SIZE, by_definition, by_module, plain, turned
from tests.conformance.rows import largest_error
from tests.models.samples import random


def distances(index, length: int) -> np.ndarray:
    position = jnp.arange(length)[None]
    return np.asarray(zoned_distance(index.zones(), position, position))[0]


def test_dual_chunk_ends_at_the_last_trained_distance_in_the_paper_and_one_beyond_in_its_code():
    """Followed: the paper, whose largest position is c - 1. The code puts far queries at c."""
    c, local = 16, 4
    chunk = c - local
    ours = distances(DualChunk(c, local), 100)
    causal = np.tril(np.ones_like(ours, bool))
    query, key = np.arange(100)[:, None] // chunk, np.arange(100)[None, :] // chunk
    inside = np.arange(100) % chunk
    code = np.where(query - key > 1, c, np.minimum(inside[:, None] + chunk, c)) - inside[None, :]
    code = np.where(query == key, inside[:, None] - inside[None, :], code)
    assert ours[causal].max() == c - 1 and code[causal].max() == c
    assert (code - ours)[(query - key > 1)].min() == (code - ours)[causal].max() == 1
    near = (query - key == 1) & (inside[:, None] < local)
    np.testing.assert_array_equal(ours[near], code[near])


@pytest.mark.parametrize("heads", [3, 6, 12, 20])
def test_slopes_of_alibi_beyond_powers_of_two_are_no_geometric_sequence(heads):
    """Followed: the authors' code. The formula of the paper's text, taken at any number of heads, is off by far."""
    naive = 2.0 ** (-8 * np.arange(1, heads + 1) / heads)
    ours = slopes(heads)
    assert largest_error(np.sort(ours), np.sort(naive), each=True) > 0.15
    power = 2 ** int(math.log2(heads))
    np.testing.assert_array_equal(ours[:power], slopes(power))  # a model's first heads are those of a smaller one
    assert len(set(ours.tolist())) == heads


def test_t5_itself_does_not_divide_its_scores():
    """Followed: division by √head_size, as everywhere here. T5's own layer is this one with its queries √d larger."""
    table = random(32, HEADS)
    distance = np.maximum(np.arange(40)[:, None] - np.arange(40)[None, :], 0)
    bucket = np.where(distance < 16, distance, 16 + np.floor(np.log(np.maximum(distance, 16) / 16) / np.log(8) * 16))
    bias = np.moveaxis(np.asarray(table, np.float64)[bucket.astype(int)], -1, 0)
    ours = by_module(T5(), position_bias=table)
    assert largest_error(ours, by_definition(bias=bias), each=False) < 1e-5
    assert largest_error(ours, by_definition(bias=bias, divisor=1.0), each=False) > 0.1
    # The bias is as large beside either score: it is not divided.
    assert largest_error(ours, by_definition(bias=bias / np.sqrt(SIZE)), each=False) > 0.1


def test_alibi_is_not_divided_with_the_scores():
    distance = np.arange(40)[:, None] - np.arange(40)[None, :]
    bias = -np.asarray(slopes(HEADS), np.float64)[:, None, None] * distance
    assert largest_error(by_module(ALiBi()), by_definition(bias=bias), each=False) < 1e-5
    assert largest_error(by_module(ALiBi()), by_definition(bias=bias / np.sqrt(SIZE)), each=False) > 0.05


def test_the_rotary_of_kazemnejad_et_al_turns_a_quarter_of_each_head():
    """Followed: whole heads (Su et al.), unless `share` says otherwise; theirs is share = 0.25."""
    quarter = by_definition(turned(plain(SIZE // 4)))
    assert largest_error(by_module(Rotary(share=0.25)), quarter, each=False) < 1e-5
    assert largest_error(by_module(Rotary()), quarter, each=False) > 0.1


def test_two_kinds_of_partial_rotation_have_other_frequencies_and_as_many_turned_numbers():
    """GPT-NeoX's width is the rotated part, p-RoPE's is the head."""
    partial, proportional = (Rotary(share=0.5, share_rule=rule).frequencies(32) for rule in ("partial", "proportional"))
    assert np.count_nonzero(partial) == np.count_nonzero(proportional) == 8
    assert partial[7] < 0.1 * proportional[7] and len(partial) == 8 and len(proportional) == 16


def test_the_temperature_of_yarn_on_the_vectors_leaves_what_is_not_rotated():
    """On cosines and sines (as coded) or on logits (as printed): the same for whole heads, another for a part."""
    scaling = YaRN(factor=8.0, original_length=1000)
    without = dataclasses.replace(scaling, attention_factor=1.0)
    for share, same in ((1.0, True), (0.5, False)):
        on_vectors = by_module(Rotary(scaling=scaling, share=share))
        on_logits = by_module(Rotary(scaling=without, share=share), temperature=YaRNTemperature(8.0))
        error = largest_error(on_vectors, on_logits, each=False)
        assert error < 1e-5 if same else error > 0.01


def test_streaming_llm_and_lm_infinite_see_the_same_keys_at_different_distances():
    """Both are offered: places in a cache (index "reindexed"), or true distances up to a cap (index "clipped")."""
    window, sinks, length = 9, 3, 40
    span, tokens = Sinks(window, sinks), contiguous_tokens(length)
    seen = np.asarray(visible(span, tokens, tokens))[0]
    places, capped = distances(Reindexed(window, sinks), length), distances(Clipped(window + sinks - 1), length)
    first = np.arange(length)[None, :] < sinks
    np.testing.assert_array_equal(places[seen & ~first], capped[seen & ~first])
    late = seen & first & (np.arange(length)[:, None] >= 2 * window)
    assert (capped[late] == window + sinks - 1).all()  # all sinks are as far as each other
    assert set(places[late]) == {window, window + 1, window + 2}  # each a place of its own


def test_the_two_layouts_of_sinusoids_are_a_permutation_of_each_other():
    position = jnp.arange(50)[None]
    interleaved, concatenated = (
        np.asarray(Sinusoidal(layout=layout).embed({}, position, 16))[0] for layout in ("interleaved", "concatenated")
    )
    assert largest_error(interleaved, concatenated, each=False) > 0.5
    np.testing.assert_array_equal(interleaved.reshape(50, 8, 2).swapaxes(1, 2).reshape(50, 16), concatenated)


def test_log_n_is_never_below_one_here():
    """Followed: Qwen, which leaves texts within the trained length alone. Su's own factor makes them flatter."""
    ours = by_module(NoPosition(), temperature=LogN(30))
    visible_tokens = np.arange(1, 41)[:, None]
    article = np.log(visible_tokens) / np.log(30)
    assert largest_error(ours, by_definition(factor=np.maximum(1, article)), each=False) < 1e-5
    unclipped = by_definition(factor=article)
    assert largest_error(ours, unclipped, each=False) > 0.05
    np.testing.assert_allclose(ours[30:], unclipped[30:], atol=1e-5 * np.abs(unclipped).max())

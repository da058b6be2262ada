"""Decoding from a cache says what a pass over the whole text says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention import Sliding
from models.attention.visibility import Prefix
from models.config import LayerConfig
from models.decoding import decode_step, generate, prefill, prompt_tokens
from models.errors import InvalidInput
from models.positions import ALiBi, Learned, NoPosition
from models.sampling import Sampler
from models.transformer import unroll_parameters
from tests.models.samples import (
    EXPERTS,
    LENGTH,
    ORIGINAL_LENGTH,
    SCHEMES,
    SPANS,
    TEMPERATURES,
    TINY,
    compiled,
    empty_cache,
    extend,
    full_logits,
    logits_and_gradient,
    parameters_of,
    relative_error,
    text,
    tokens_at,
    whole,
)

prefilled = compiled(prefill, static_argnums=(0, 4))
stepped = compiled(decode_step, static_argnums=0)
generated = compiled(generate.__wrapped__, static_argnums=(0, 1, 2))
greedy = Sampler(temperature=0)

PROMPT = 5  # tokens of the longest prompt
MIXED = TINY.replace(
    layers=5,
    embeddings="separate",
    pattern=(
        LayerConfig(position=SCHEMES["rope dynamic_ntk"], span=Sliding(3)),
        LayerConfig(position=NoPosition()),
    ),
)


def full(config, words_BxL):
    """Logits [B, L, V] without a cache or padding, by the program that other tests of this room compile too."""
    nothing = jnp.zeros((1, LENGTH, config.vocabulary))
    rows = [logits_and_gradient(config, parameters_of(config), row[None], whole(1), nothing)[0] for row in words_BxL]
    return np.concatenate(rows)


def decoded(config, words_BxL, lengths, parameters=None):
    """Logits of every token from the last of each row's prompt on: prompts of `lengths`, then the text itself."""
    parameters = parameters_of(config) if parameters is None else parameters
    words, rows = np.asarray(words_BxL), range(len(words_BxL))
    prompts, valid = np.full((len(words), PROMPT), 7, np.int32), np.zeros((len(words), PROMPT), bool)
    for row in rows:
        prompts[row, PROMPT - lengths[row] :] = words[row, : lengths[row]]
        valid[row, PROMPT - lengths[row] :] = True
    logits, cache = prefilled(config, parameters, prompts, valid, LENGTH)
    found = [[logits[row]] for row in rows]
    for step in range(LENGTH - PROMPT):
        new = np.array([words[row, lengths[row] + step] for row in rows], np.int32)
        logits, cache = stepped(config, parameters, cache, new)
        for row in rows:
            found[row].append(logits[row])
    return [np.stack(row) for row in found]


def check_against(wanted, config, parameters=None):
    """Two ragged rows: the second prompt is padded by two."""
    words, lengths = text(2), (PROMPT, PROMPT - 2)
    for row, got in enumerate(decoded(config, words, lengths, parameters)):
        start = lengths[row] - 1
        assert relative_error(got, wanted[row, start : start + len(got)]) < 1e-5


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_decoding_equals_the_full_pass(scheme):
    """Ragged, left-padded prompts; the scalings cross their original length on the way."""
    assert PROMPT <= ORIGINAL_LENGTH < LENGTH
    config = TINY.replace(position=scheme, embeddings="separate")
    check_against(full(config, text(2)), config)


def layers_of(*layers):
    """A model of these layers, one of each: they compile together in the time of two."""
    return TINY.replace(layers=len(layers), pattern=layers, embeddings="separate")


def test_decoding_under_every_temperature():
    config = layers_of(*(LayerConfig(temperature=temperature) for temperature in TEMPERATURES.values()))
    check_against(full(config, text(2)), config)


@pytest.mark.parametrize("third", range(3))
def test_decoding_under_every_span(third):
    """A span that looks ahead does so within the prompts."""
    spans = list(SPANS.values())[third::3]
    spans = [span if span.is_causal() else Prefix(PROMPT - 2) for span in spans]
    config = layers_of(*(LayerConfig(span=span) for span in spans))
    check_against(full(config, text(2)), config)


@pytest.mark.parametrize("name", ["forgetting", "rope randomized", "cope", "rope reindexed"])
def test_decoding_from_the_latest_tokens_alone(name):
    """What goes on from the last slot, or stands in slots beside positions, where slots are a ring."""
    config = TINY.replace(position=SCHEMES[name], span=SPANS["sinks"], embeddings="separate")
    check_against(full(config, text(2)), config)


@pytest.mark.parametrize("loop", ["scan", "unroll"])
def test_decoding_a_mixed_pattern_with_a_remainder(loop):
    wanted = full_logits(MIXED, parameters_of(MIXED), text(2), whole(2))
    check_against(wanted, MIXED.replace(layer_loop=loop))


@pytest.mark.parametrize("experts", EXPERTS.values(), ids=EXPERTS)
def test_decoding_with_experts(experts):
    """Nothing is dropped outside training, however many tokens are computed at a time."""
    config = TINY.replace(experts=experts, embeddings="separate")
    check_against(full(config, text(2)), config)


def test_decoding_through_tiles():
    config = TINY.replace(position=SCHEMES["t5"], embeddings="separate")
    check_against(full(config, text(2)), config.replace(attention="blockwise"), parameters_of(config))


def test_prefilling_in_chunks():
    words, cache, parts = text(2), empty_cache(MIXED, 2), []
    for start in range(0, LENGTH, 4):
        where = tokens_at(np.tile(np.arange(start, start + 4), (2, 1)))
        logits, cache = extend(MIXED, parameters_of(MIXED), cache, words[:, start : start + 4], where)
        parts.append(logits)
    assert int(cache.filled) == LENGTH
    wanted = full_logits(MIXED, parameters_of(MIXED), words, whole(2))
    assert relative_error(np.concatenate(parts, axis=1), wanted) < 1e-5


def test_prompts_are_padded_on_the_left():
    where = prompt_tokens(jnp.array([[True, True, True], [False, False, True]]))
    assert where.position[0].tolist() == [0, 1, 2] and where.document[0].tolist() == [0, 0, 0]
    assert where.position[1, -1] == 0 and where.document[1].tolist() == [-1, -1, 0]


def test_greedy_generation_equals_a_loop_over_the_full_pass():
    config = TINY.replace(position=ALiBi(), embeddings="separate")
    prompt, count = np.asarray(text(1, PROMPT)), LENGTH - PROMPT
    words = np.zeros((1, LENGTH), np.int32)
    words[:, :PROMPT] = prompt
    for at in range(PROMPT, LENGTH):
        words[:, at] = full(config, jnp.asarray(words))[:, at - 1].argmax(-1)
    assert len(set(words[0, PROMPT:].tolist())) > 2  # a text that says something
    unrolled, valid = config.replace(layer_loop="unroll"), np.ones_like(prompt, bool)
    new = generated(unrolled, greedy, count, parameters_of(unrolled), prompt, valid, 0)
    assert new.dtype == jnp.int32
    np.testing.assert_array_equal(new, words[:, PROMPT:])
    one = generated(unrolled, greedy, 1, parameters_of(unrolled), prompt, valid, 0)
    np.testing.assert_array_equal(one, words[:, PROMPT : PROMPT + 1])


def test_generation_follows_its_seed():
    prompt = text(2, PROMPT)
    arguments = (TINY, Sampler(temperature=2.0), 6, parameters_of(TINY), prompt, jnp.ones_like(prompt, bool))
    one, again, other = (np.asarray(generate(*arguments, seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert all(len(set(row)) > 1 for row in one)  # not the same random numbers at every step


def test_what_does_not_fit_is_refused():
    prompt = jnp.zeros((1, PROMPT), jnp.int32)
    valid = jnp.ones_like(prompt, bool)
    with pytest.raises(InvalidInput, match=r"^capacity = 4 is not allowed; it must be at least 5"):
        prefilled(TINY, parameters_of(TINY), prompt, valid, 4)
    with pytest.raises(InvalidInput, match=r"^count = 0 is not allowed; it must be at least 1"):
        generate(TINY, greedy, 0, parameters_of(TINY), prompt, valid, 0)
    learned = TINY.replace(position=Learned(length=8))
    with pytest.raises(InvalidInput, match=r"^capacity = 9 is not allowed; it must be at most 8: .*'learned'"):
        generate(learned, greedy, 4, parameters_of(learned), prompt, valid, 0)
    shapes = jax.eval_shape(lambda: generate(learned, greedy, 3, parameters_of(learned), prompt, valid, 0))
    assert shapes.shape == (1, 3)


def test_a_learned_position_beyond_its_table_is_no_number():
    """Where a length cannot be refused while tracing, NaN says so; a clamped index would give plausible numbers."""
    config = TINY.replace(position=Learned(length=LENGTH))
    beyond = tokens_at(np.arange(LENGTH)[None] + 1)
    logits = np.asarray(full_logits(config, parameters_of(config), text(1), beyond))
    assert np.isnan(logits[:, -1]).all()


def test_unrolled_parameters_are_the_same_numbers():
    scanned, unrolled = parameters_of(MIXED), unroll_parameters(MIXED, parameters_of(MIXED))
    assert set(unrolled) - set(scanned) == {"unit_0", "unit_1"} and "last_unit" in unrolled
    total = [sum(x.size for x in jax.tree.leaves(tree)) for tree in (scanned, unrolled)]
    assert total[0] == total[1]

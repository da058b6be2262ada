"""What every registered mixer owes: no look ahead, documents apart, the same however it is run."""

import jax.numpy as jnp
import numpy as np
import pytest

from models.config import LayerConfig
from models.mixers import Mixer
from models.positions import NoPosition
from models.transformer import unroll_parameters
from tests.models.samples import (
    LENGTH,
    MIXERS,
    TINY,
    VOCABULARY,
    empty_cache,
    extend,
    full_logits,
    logits_and_gradient,
    logits_in_halves,
    parameters_of,
    random,
    relative_error,
    text,
    tokens_at,
    whole,
)

# Of logits, as a share of the largest, for models of two layers.
BFLOAT16_ERROR = 0.03
WORDS = jnp.arange(LENGTH)[None]  # every token another word: a row of the embedding is one place's input


def model(name: str):
    return TINY.replace(mixer=MIXERS[name], embeddings="separate")


def evaluate(config, where, at=None, words=WORDS):
    """Logits [L, V], the influence [L] of each place's word on those of place `at`, and the whole gradient."""
    weight = random(1, LENGTH, VOCABULARY)
    weight = weight if at is None else jnp.zeros_like(weight).at[0, at].set(weight[0, at])
    logits, gradient = logits_and_gradient(config, parameters_of(config), words, where, weight)
    return np.asarray(logits[0]), np.abs(np.asarray(gradient["embedding"])[:LENGTH]).max(axis=1), gradient


def test_every_registered_mixer_is_tested():
    assert {mixer.name for mixer in MIXERS.values()} == set(Mixer.registry)
    assert all(isinstance(MIXERS[name], Mixer.registry[name]) for name in Mixer.registry)


@pytest.mark.parametrize("name", MIXERS)
def test_nothing_later_has_a_gradient(name):
    config = model(name)
    for at in (0, 6, LENGTH - 1):
        _, influence, _ = evaluate(config, whole(1), at)
        assert (influence[at + 1 :] == 0).all() and (influence[: at + 1] > 0).all()
    _, _, gradient = evaluate(config, whole(1))
    units = gradient["units"]["layer_0"]["attention"]
    assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0 for part in units.values() for leaf in flat(part))


def flat(part):
    return part.values() if isinstance(part, dict) else [part]


@pytest.mark.parametrize("name", MIXERS)
def test_packed_documents_and_padding_are_not_seen(name):
    """Two documents in a row, with padding before and between them, say what each says alone."""
    config, (one, other) = model(name), (range(1, 6), range(7, 12))
    position, document = np.zeros((2, 1, LENGTH), int)
    document[:] = -1
    for number, places in enumerate((one, other)):
        position[0, places], document[0, places] = np.arange(len(places)), number
    packed, influence, _ = evaluate(config, tokens_at(position, document), 11)
    assert (influence[: other[0]] == 0).all() and (influence[other[0] :] > 0).all()
    for places in (one, other):
        moved = jnp.roll(WORDS, -places[0], axis=1)
        at = tokens_at(np.arange(LENGTH)[None], [np.where(np.arange(LENGTH) < len(places), 0, -1)])
        alone, _, _ = evaluate(config, at, 0, moved)
        assert relative_error(packed[places], alone[: len(places)]) < 1e-5


@pytest.mark.parametrize("name", MIXERS)
def test_a_stack_is_the_same_unrolled_and_computed_again(name):
    config = model(name)
    other = config.replace(layer_loop="unroll", rematerialize="full")
    (logits, _, gradient), (wanted, _, wanted_gradient) = (evaluate(one, whole(1)) for one in (config, other))
    assert relative_error(logits, wanted) < 1e-5
    assert relative_error(unroll_parameters(config, gradient), wanted_gradient) < 1e-5


@pytest.mark.parametrize("name", MIXERS)
def test_decoding_equals_the_full_pass(name):
    """Two left-padded rows of different lengths, prefilled in two parts and then token by token."""
    config, padding = model(name), (0, 3)
    place = np.array([np.arange(LENGTH) - pad for pad in padding])
    words = np.where(place >= 0, text(2), 7)
    cache, parts = empty_cache(config, 2), []
    for start, stop in ((0, 5), (5, 10), (10, 11), (11, 12)):
        where = tokens_at(np.maximum(place, 0)[:, start:stop], np.where(place >= 0, 0, -1)[:, start:stop])
        logits, cache = extend(config, parameters_of(config), cache, words[:, start:stop], where)
        parts.append(np.asarray(logits))
    got = np.concatenate(parts, axis=1)
    for row, pad in enumerate(padding):
        moved = jnp.asarray(np.roll(words[row], -pad)[None])
        wanted, _, _ = evaluate(config, whole(1), words=moved)
        assert relative_error(got[row, pad:], wanted[: LENGTH - pad]) < 1e-5


@pytest.mark.parametrize("name", MIXERS)
def test_bfloat16_stays_near_float32(name):
    config = model(name)
    logits = full_logits(config.replace(dtype="bfloat16"), parameters_of(config), WORDS, whole(1))[0]
    wanted, _, _ = evaluate(config, whole(1))
    assert 1e-4 < relative_error(logits, wanted) < BFLOAT16_ERROR


def test_mixers_differ():
    logits = [evaluate(model(name), whole(1))[0] for name in ("softmax", "linear", "linear relu")]
    assert relative_error(logits[0], logits[1]) > 1e-2 and relative_error(logits[1], logits[2]) > 1e-2
    changed = {"softmax sink", "softmax soft_cap"}
    plain = parameters_of(model("softmax"))
    for name in changed:
        config = model(name)
        more = {"sink": random(2, 4)} if "sink" in name else {}
        units = plain["units"]["layer_0"] | {"attention": plain["units"]["layer_0"]["attention"] | more}
        got = logits_and_gradient(
            config, plain | {"units": {"layer_0": units}}, WORDS, whole(1), random(1, LENGTH, VOCABULARY)
        )[0][0]
        assert relative_error(got, logits[0]) > 1e-2


@pytest.mark.parametrize("loop", ["scan", "unroll"])
def test_layers_of_a_pattern_have_their_own_mixers(loop):
    """Recurrent sums, latents and keys in one cache."""
    kinds = tuple(LayerConfig(mixer=MIXERS[name]) for name in ("linear", "latent", "softmax sink"))
    config = TINY.replace(layers=4, pattern=kinds, embeddings="separate", layer_loop=loop, position=NoPosition())
    assert [config.layer_mixer(i).name for i in range(4)] == ["linear", "latent", "softmax", "linear"]
    wanted = full_logits(config, parameters_of(config), text(2), whole(2))
    assert relative_error(logits_in_halves(config), wanted) < 1e-5

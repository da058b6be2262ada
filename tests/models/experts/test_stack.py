"""Every mixture of experts in a whole decoder, by its registered name: who influences whom, and that options of the
stack change nothing, in training, where capacities hold."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.config import FeedForwardConfig, LayerConfig
from models.experts.layer import COLLECTION
from models.transformer import Transformer, to_logits, unroll_parameters
from tests.models.samples import (
    EXPERTS,
    LENGTH,
    TINY,
    VOCABULARY,
    compiled,
    full_logits,
    parameters_of,
    random,
    relative_error,
    text,
    tokens_at,
    whole,
)


def config_of(experts):
    return TINY.replace(experts=experts, embeddings="separate", feed_forward=FeedForwardConfig("swiglu", bias=True))


@functools.partial(compiled, static_argnums=0)
def observe(config, parameters, tokens_BxL, where, weight_BxLxV, balancing):
    """Logits in training and what is sown; the gradient of their weighted sum plus `balancing` times the losses."""

    def objective(parameters):
        (hidden, _), sown = Transformer(config).apply(
            {"params": parameters}, tokens_BxL, where, deterministic=False, mutable=[COLLECTION]
        )
        logits = to_logits(config, parameters, hidden)
        loss = sum(leaf.sum() for path, leaf in jax.tree_util.tree_leaves_with_path(sown) if path[-1].key == "loss")
        return jnp.vdot(logits, weight_BxLxV) + balancing * loss, (logits, sown[COLLECTION])

    gradient, (logits, sown) = jax.grad(objective, has_aux=True)(parameters)
    return logits, sown, gradient


def observed(config, words=None, where=None, weight=None, balancing=1.0):
    words = text(2) if words is None else words
    where = whole(2) if where is None else where
    weight = random(2, LENGTH, VOCABULARY, seed=3) if weight is None else weight
    return observe(config, parameters_of(config), words, where, weight, balancing)


each = pytest.mark.parametrize("experts", EXPERTS.values(), ids=EXPERTS)


@each
def test_nothing_later_matters_and_every_parameter_does(experts):
    config = config_of(experts)
    words = jnp.arange(2 * LENGTH).reshape(2, LENGTH) % VOCABULARY  # no word twice in a row
    logits, sown, gradient = observed(config, words)
    for path, value in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(value).all() and np.abs(value).max() > 0, jax.tree_util.keystr(path)
    dropped = sown["units"]["layer_0"]["feed_forward"]["dropped_share"]
    assert (dropped > 0).all() == (experts.name == "token_choice")
    for at in (0, 6):
        weight = jnp.zeros((2, LENGTH, VOCABULARY)).at[0, at].set(random(VOCABULARY))
        _, _, gradient = observed(config, words, weight=weight, balancing=0.0)
        influence = np.abs(np.asarray(gradient["embedding"])).max(axis=1)[:LENGTH]
        assert (influence[at + 1 :] == 0).all() and (influence[: at + 1] > 0).all()
    # A gradient does not see who displaces whom.
    later, _, _ = observed(config, words.at[:, 7:].set((words[:, 7:] + 5) % VOCABULARY))
    assert relative_error(later[:, :7], logits[:, :7]) < 1e-5 and (np.abs(later - logits)[:, 7:].max(-1) > 0).all()


@each
def test_padding_says_and_changes_nothing(experts):
    config, real = config_of(experts), 8
    document = np.tile(np.where(np.arange(LENGTH) < real, 0, -1), (2, 1))
    logits, sown, _ = observed(config, where=tokens_at(whole(2).position, document))
    words = text(2).at[:, real:].set(7)
    other, said, _ = observed(config, words, tokens_at(whole(2).position, document))
    np.testing.assert_allclose(other[:, :real], logits[:, :real], rtol=1e-4, atol=1e-5)
    assert relative_error(said, sown) < 1e-5
    # Padding on the left, as prompts have it.
    left = tokens_at(np.roll(whole(2).position, LENGTH - real, 1), np.roll(document, LENGTH - real, 1))
    moved, said, _ = observed(config, jnp.roll(words, LENGTH - real, axis=1), left)
    np.testing.assert_allclose(moved[:, LENGTH - real :], logits[:, :real], rtol=1e-4, atol=1e-4)
    assert relative_error(said, sown) < 1e-5


@each
def test_scan_equals_unroll_and_rematerialization_changes_nothing(experts):
    config = config_of(experts)
    logits, sown, gradient = observed(config)
    unrolled, said, wanted = observed(config.replace(layer_loop="unroll"))
    assert relative_error(logits, unrolled) < 1e-5
    assert relative_error(unroll_parameters(config, sown), said) < 1e-5
    assert relative_error(unroll_parameters(config, gradient), wanted) < 1e-5
    assert relative_error(observed(config.replace(rematerialize="full")), (logits, sown, gradient)) < 1e-5


@each
def test_bfloat16_is_off_by_rounding(experts):
    """Most tokens keep their experts; where rounded activations send one elsewhere, it differs."""
    config = config_of(experts)
    rounded, wanted = (
        np.asarray(full_logits(c, parameters_of(config), text(2), whole(2)))
        for c in (config.replace(dtype="bfloat16"), config)
    )
    error = np.abs(rounded - wanted).max(axis=-1) / np.abs(wanted).max()
    assert 1e-4 < np.median(error) < 0.03


def test_a_pattern_mixes_dense_layers_and_experts():
    mixed = LayerConfig(experts=EXPERTS["dropless"])
    parameters = parameters_of(TINY.replace(layers=3, pattern=(LayerConfig(), mixed)))
    assert set(parameters["units"]["layer_0"]["feed_forward"]) == {"up", "output"}
    assert set(parameters["units"]["layer_1"]["feed_forward"]) == {"router", "experts", "shared"}
    assert parameters["units"]["layer_1"]["feed_forward"]["experts"]["up"]["kernel"].shape == (1, 4, 16, 10)
    assert set(parameters["last_unit"]["layer_0"]["feed_forward"]) == {"up", "output"}

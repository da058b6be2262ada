"""Every registered norm placement: its formula, and that nothing else changes with it."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.config import LayerConfig, NormConfig
from models.errors import InvalidInput
from models.placements import DeepNorm, Gains, LayerScale, Mixed, Parallel, Placement, ReZero, Scaled
from models.transformer import init_parameters, unroll_parameters
from tests.models.definition import FORMULAS, numpy_logits
from tests.models.samples import (
    LENGTH,
    PLACEMENTS,
    TINY,
    VOCABULARY,
    compiled,
    empty_cache,
    extend,
    full_logits,
    logits_and_gradient,
    parameters_of,
    placed,
    random,
    relative_error,
    text,
    tokens_at,
    whole,
)


def evaluate(config, at=None, words=None):
    """Logits of a text, and the gradient of their weighted sum, everywhere or at one place."""
    weight = random(1, LENGTH, VOCABULARY, seed=3)
    if at is not None:
        weight = jnp.zeros_like(weight).at[0, at].set(weight[0, at])
    return logits_and_gradient(config, parameters_of(config), text(1) if words is None else words, whole(1), weight)


def test_every_placement_has_a_formula_and_the_table_all_of_them():
    assert set(FORMULAS) == set(PLACEMENTS)
    assert {placement.name for placement in PLACEMENTS.values()} == set(Placement.registry)


@pytest.mark.parametrize("name", PLACEMENTS)
def test_a_stack_follows_its_formula(name):
    config = placed(PLACEMENTS[name])
    layers, final_norm = FORMULAS[name]
    parameters = parameters_of(config)
    assert ("final_norm" in parameters) == final_norm == config.norm.placement.final_norm
    wanted = numpy_logits(config, parameters, np.asarray(text(1)), layers, final_norm)
    assert relative_error(evaluate(config)[0], wanted) < 1e-5


@pytest.mark.parametrize("name", PLACEMENTS)
def test_nothing_later_has_a_gradient_and_every_parameter_has_one(name):
    """Every token is another word, so that a row of the input embedding is one place's input."""
    config = placed(PLACEMENTS[name])
    for at in (0, 6, LENGTH - 1):
        _, gradient = evaluate(config, at, jnp.arange(LENGTH)[None])
        influence = np.abs(np.asarray(gradient["embedding"])).max(axis=1)
        assert (influence[at + 1 :] == 0).all() and (influence[: at + 1] > 0).all()
    for path, value in jax.tree_util.tree_leaves_with_path(evaluate(config)[1]):
        assert np.isfinite(value).all() and np.abs(value).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", PLACEMENTS)
def test_unrolled_and_computed_again_it_is_the_same(name):
    config = placed(PLACEMENTS[name])
    logits, gradient = evaluate(config)
    other_logits, other_gradient = evaluate(config.replace(layer_loop="unroll", rematerialize="full"))
    assert relative_error(other_logits, logits) < 1e-5
    assert relative_error(other_gradient, unroll_parameters(config, gradient)) < 1e-5


@pytest.mark.parametrize("name", PLACEMENTS)
def test_in_bfloat16_it_is_nearly_the_same(name):
    """Within 4% of the largest logit; where nothing normalizes the stream, rounding grows with it: within 10%."""
    config = placed(PLACEMENTS[name])
    rounded = full_logits(config.replace(dtype="bfloat16"), parameters_of(config), text(1), whole(1))
    assert 1e-4 < relative_error(rounded, evaluate(config)[0]) < (0.1 if name in ("none", "rezero") else 0.04)


@pytest.mark.parametrize("name", PLACEMENTS)
def test_decoding_after_padding_equals_the_full_pass(name):
    """Token by token, from an empty cache; what stands before the text is seen by none of it."""
    config, words, padding = placed(PLACEMENTS[name]), text(1), 3
    cache, found = empty_cache(config, 1), []
    for at in range(LENGTH):
        where = tokens_at([[max(at - padding, 0)]], [[0 if at >= padding else -1]])
        logits, cache = extend(config, parameters_of(config), cache, words[:, at : at + 1], where)
        found.append(logits)
    wanted, _ = evaluate(config, words=jnp.roll(words, -padding, axis=1))
    assert relative_error(np.concatenate(found[padding:], axis=1), wanted[:, : LENGTH - padding]) < 1e-5


def test_mixed_layers_count_through_patterns_and_remainders():
    """Five layers in units of two: three of them post-norm, which ends within a unit."""
    pattern = (LayerConfig(), LayerConfig())
    config = placed(Mixed(share=0.6)).replace(layers=5, pattern=pattern)
    parameters = parameters_of(config)
    units, last = parameters["units"], parameters["last_unit"]["layer_0"]
    layers = [jax.tree.map(lambda x, i=i: x[i // 2], units[f"layer_{i % 2}"]) for i in range(4)] + [last]
    stacked = {**parameters, "units": {"layer_0": jax.tree.map(lambda *same: jnp.stack(same), *layers)}}
    post, pre = FORMULAS["mixed"][0]
    wanted = numpy_logits(config, stacked, np.asarray(text(1)), [post] * 3 + [pre] * 2)
    for loop in ("scan", "unroll"):
        other = config.replace(layer_loop=loop)
        assert relative_error(full_logits(other, parameters_of(other), text(1), whole(1)), wanted) < 1e-5


@pytest.mark.parametrize(
    ("share", "layers", "post"), [(0.25, 12, 3), (0.25, 7, 1), (0.29, 100, 29), (0, 4, 0), (1, 4, 4)]
)
def test_a_share_of_layers_is_post_norm(share, layers, post):
    assert Mixed(share=share).post_layers(layers) == post


def test_norms_of_kind_none_leave_the_rest_of_a_placement():
    """Pre-norm without norms is no placement at all; a scaled residual keeps its factor."""
    parameters = parameters_of(placed(PLACEMENTS["none"]))
    for name, formula in (("pre", "none"), ("scaled", None)):
        config = placed(PLACEMENTS[name])
        config = config.replace(norm=NormConfig(name="none", placement=config.norm.placement))
        got = full_logits(config, parameters, text(1), whole(1))
        layers = FORMULAS[formula][0] if formula else [in_turn_without_norm(0.7)] * 2
        assert relative_error(got, numpy_logits(config, parameters, np.asarray(text(1)), layers, False)) < 1e-5


def in_turn_without_norm(scale):
    def apply(x, sublayers, norm, own):
        for f in sublayers.values():
            x = x + scale * f(x)
        return x

    return apply


@pytest.mark.parametrize(
    ("placement", "alpha", "beta"),
    [
        (DeepNorm(), 36**0.25, 144**-0.25),
        (DeepNorm(stack="encoder"), 36**0.25, 144**-0.25),
        (DeepNorm(stack="decoder_with_encoder"), 54**0.25, 216**-0.25),
        (DeepNorm(stack="encoder_with_decoder"), 0.81 * (18**5) ** 0.0625, 0.87 * (18**5) ** -0.0625),
        (
            DeepNorm(stack="encoder_with_decoder", decoder_layers=6),
            0.81 * (18**4 * 6) ** 0.0625,
            0.87 * (18**4 * 6) ** -0.0625,
        ),
    ],
)
def test_deepnorm_has_the_constants_of_its_paper_at_18_layers(placement, alpha, beta):
    assert placement.alpha(18) == pytest.approx(alpha, rel=1e-12)
    assert placement.gains(18) == pytest.approx((beta, beta), rel=1e-12)


def test_deepnorm_makes_initial_kernels_smaller_and_no_others():
    config = placed(DeepNorm()).replace(width=64, head_size=None, kv_heads=4, layers=8)
    init = compiled(lambda: nn.meta.unbox(init_parameters(config, 0))["units"]["layer_0"])
    layers, beta = jax.tree.map(np.asarray, init()), 64**-0.25
    for part, name, fan_in, gain in (
        ("attention", "query", 64, 1),
        ("attention", "key", 64, 1),
        ("attention", "value", 64, beta),
        ("attention", "output", 64, beta),
        ("feed_forward", "up", 64, beta),
        ("feed_forward", "output", 256, beta),
    ):
        # A normal distribution that is cut off at two standard deviations keeps 0.88 of them.
        np.testing.assert_allclose(layers[part][name]["kernel"].std(), 0.8796 * gain * fan_in**-0.5, rtol=0.02)


def test_factors_begin_as_stated_and_leave_kernels_their_size():
    for placement in (Scaled(), ReZero(), LayerScale()):
        assert placement.gains(8) == Gains(1.0, 1.0)
    assert all(Placement.registry[name]().gains(8) == Gains(1.0, 0.25) for name in ("pre", "post", "mixed", "none"))
    key = jax.random.key(0)
    (alpha,) = ReZero().parameters(16, ("attention",)).values()
    assert alpha.shape == () and alpha.initializer(key, alpha.shape, jnp.float32) == 0
    specs = LayerScale(initial=0.01).parameters(16, ("attention", "feed_forward"))
    assert list(specs) == ["attention_scale", "feed_forward_scale"]
    for spec in specs.values():
        np.testing.assert_allclose(spec.initializer(key, spec.shape, jnp.float32), np.full(16, 0.01), rtol=1e-6)


def test_an_unset_scale_is_that_of_the_depth():
    at_depth, given = (placed(Scaled(scale)) for scale in (None, 0.5))  # two layers
    same = full_logits(given, parameters_of(given), text(1), whole(1))
    np.testing.assert_array_equal(full_logits(at_depth, parameters_of(given), text(1), whole(1)), same)


@pytest.mark.parametrize(
    ("placement", "fields", "message"),
    [
        (DeepNorm, {"stack": "both"}, "stack = 'both' … one of decoder, encoder, decoder_with_encoder, encoder_w"),
        (DeepNorm, {"stack": "encoder_with_decoder", "decoder_layers": 0}, "decoder_layers = 0 … at least 1"),
        (DeepNorm, {"decoder_layers": 4}, "decoder_layers = 4 … None unless stack is 'encoder_with_decoder'"),
        (Scaled, {"scale": 0.0}, "scale = 0.0 … a finite number above 0, or None for 1/√(2 · layers)"),
        (LayerScale, {"initial": math.inf}, "initial = inf … a finite number above 0"),
        (Mixed, {"share": 1.5}, "share = 1.5 … from 0 to 1"),
        (Parallel, {"norms": 3}, "norms = 3 … 1 or 2"),
    ],
)
def test_a_placement_refuses(placement, fields, message):
    with pytest.raises(InvalidInput) as refused:
        placement(**fields)
    assert str(refused.value).startswith(message.replace("…", "is not allowed; it must be"))


def test_placements_are_keys():
    assert len({placed(placement) for placement in PLACEMENTS.values()}) == len(PLACEMENTS)
    assert TINY.replace() == placed(PLACEMENTS["pre"]).replace(position=TINY.position, embeddings=TINY.embeddings)

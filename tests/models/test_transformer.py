"""The whole decoder: what it computes, who can influence whom, and that its options change only what they say."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention import Sliding
from models.config import EMBEDDINGS, REMATERIALIZATION, FeedForwardConfig, LayerConfig, NormConfig
from models.errors import InvalidInput
from models.norms import NORMS
from models.positions import ALiBi, Learned, NoPosition, Rotary
from models.transformer import (
    Transformer,
    init_parameters,
    output_matrix,
    regroup_parameters,
    to_logits,
    unroll_parameters,
)
from tests.models.definition import numpy_logits
from tests.models.samples import (
    LENGTH,
    SCHEMES,
    TINY,
    VOCABULARY,
    compiled,
    full_logits,
    logits_and_gradient,
    parameters_of,
    random,
    relative_error,
    text,
    tokens_at,
    whole,
)

# Five layers of a pattern of two: a remainder, two schemes and two spans.
MIXED = TINY.replace(
    layers=5,
    pattern=(LayerConfig(position=Rotary(), span=Sliding(3)), LayerConfig(position=NoPosition())),
)


def evaluate(config, rows=2):
    """Logits and gradients of one fixed text and weights."""
    weight = random(rows, LENGTH, VOCABULARY, seed=3)
    return logits_and_gradient(config, parameters_of(config), text(rows), whole(rows), weight)


def test_it_computes_its_definition():
    config = TINY.replace(position=NoPosition())
    got = full_logits(config, parameters_of(config), text(2), whole(2))
    assert got.dtype == jnp.float32 and got.shape == (2, LENGTH, VOCABULARY)
    assert relative_error(got, numpy_logits(config, parameters_of(config), np.asarray(text(2)))) < 1e-5


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_nothing_later_has_a_gradient_and_packed_documents_are_separate(scheme):
    """One program serves both: every token is another word, so a row of the input embedding is one place's input."""
    config = TINY.replace(position=scheme, embeddings="separate")
    parameters, words = parameters_of(config), jnp.arange(LENGTH)[None]

    def evaluate(where, at, words=words):
        weight = jnp.zeros((1, LENGTH, VOCABULARY)).at[0, at].set(random(VOCABULARY))
        logits, gradient = logits_and_gradient(config, parameters, words, where, weight)
        return np.asarray(logits[0]), np.abs(np.asarray(gradient["embedding"])).max(axis=1)

    for at in (0, 6, LENGTH - 1):
        _, influence = evaluate(whole(1), at)
        assert (influence[at + 1 :] == 0).all() and (influence[: at + 1] > 0).all()

    start = 7  # of the second of two documents
    first, second = np.arange(LENGTH) < start, np.arange(LENGTH) >= start
    position = np.where(first, np.arange(LENGTH), np.arange(LENGTH) - start)[None]
    packed, influence = evaluate(tokens_at(position, [second.astype(int)]), LENGTH - 1)
    assert (influence[:start] == 0).all() and (influence[start:LENGTH] > 0).all()
    alone, _ = evaluate(tokens_at(position, [np.where(first, 0, -1)]), 0)
    np.testing.assert_allclose(packed[:start], alone[:start], atol=1e-5)
    moved = jnp.roll(words, -start, axis=1)
    alone, _ = evaluate(tokens_at(np.roll(position, -start), [np.roll(np.where(second, 0, -1), -start)]), 0, moved)
    np.testing.assert_allclose(packed[start:], alone[: LENGTH - start], atol=1e-5)


@pytest.mark.parametrize("name", [name for name in SCHEMES if name != "none"])
def test_a_scheme_makes_order_matter(name):
    """Without positions, a last token's logits do not notice the order of those before it."""
    shuffled = text(1)[:, jnp.array([*range(7), 9, 10, 7, 8, 11])]
    one_layer = TINY.replace(layers=1)
    for scheme, matters in ((NoPosition(), False), (SCHEMES[name], True)):
        config = one_layer.replace(position=scheme)
        here, there = (full_logits(config, parameters_of(config), x, whole(1))[0, -1] for x in (text(1), shuffled))
        assert (np.abs(here - there).max() > 1e-3) == matters


def test_a_window_limits_how_far_a_stack_sees():
    config = TINY.replace(span=Sliding(3), position=ALiBi(), embeddings="separate")
    weight = jnp.zeros((1, LENGTH, VOCABULARY)).at[0, -1].set(1.0)
    _, gradient = logits_and_gradient(config, parameters_of(config), jnp.arange(LENGTH)[None], whole(1), weight)
    influence = np.abs(np.asarray(gradient["embedding"])[:LENGTH]).max(axis=1)
    # Two layers, each two tokens back.
    np.testing.assert_array_equal(influence > 0, np.arange(LENGTH) >= LENGTH - 5)


def test_scan_equals_unroll():
    logits, gradient = evaluate(MIXED)
    wanted, wanted_gradient = evaluate(MIXED.replace(layer_loop="unroll"))
    assert relative_error(logits, wanted) < 1e-5
    assert relative_error(unroll_parameters(MIXED, gradient), wanted_gradient) < 1e-5
    fresh = nn.meta.unbox(jax.eval_shape(lambda: init_parameters(MIXED.replace(layer_loop="unroll"), 0)))
    assert jax.tree.map(lambda x: x.shape, fresh) == jax.tree.map(lambda x: x.shape, wanted_gradient)
    assert unroll_parameters(MIXED, wanted_gradient) is wanted_gradient


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("loop", ["scan", "unroll"])
def test_a_stack_is_regrouped_without_a_change(length, loop):
    """Five layers in units of two, read in units of any length and back; what they compute stays."""
    config = MIXED.replace(layer_loop=loop)
    regrouped = regroup_parameters(config, parameters_of(config), length)
    pattern = tuple(MIXED.pattern[0] for _ in range(length))
    same = MIXED.replace(pattern=pattern)
    wanted = jax.eval_shape(lambda: nn.meta.unbox(init_parameters(same, 0)))
    assert jax.tree.map(lambda x: x.shape, regrouped) == jax.tree.map(lambda x: x.shape, wanted)
    back = regroup_parameters(same, regrouped, 2)
    assert relative_error(back, parameters_of(MIXED)) == 0
    for i in range(5):
        unit, place = divmod(i, length)
        group = regrouped["last_unit"] if unit == 5 // length else regrouped["units"]
        leaf = group[f"layer_{place}"]["feed_forward"]["up"]["kernel"]
        leaf = leaf if unit == 5 // length else leaf[unit]
        mixed = parameters_of(MIXED.replace(layer_loop="unroll"))
        owner = mixed["last_unit"] if i == 4 else mixed[f"unit_{i // 2}"]
        np.testing.assert_array_equal(leaf, owner[f"layer_{i % 2}"]["feed_forward"]["up"]["kernel"])


def test_layers_with_different_parameters_are_not_stacked():
    config = TINY.replace(pattern=(LayerConfig(SCHEMES["t5"]), LayerConfig(NoPosition())))
    with pytest.raises(InvalidInput, match="whose repeated layers hold the same parameters"):
        regroup_parameters(config, parameters_of(config), 1)


def test_layers_of_a_pattern_have_their_own_scheme_and_span():
    """Each place of the pattern matters, and repeats in order."""
    everywhere = [MIXED.layer_position(i).name for i in range(5)], [MIXED.layer_span(i).name for i in range(5)]
    assert everywhere == (["rope", "none"] * 2 + ["rope"], ["sliding", "full"] * 2 + ["sliding"])
    logits, gradient = evaluate(MIXED)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(gradient))
    first, second = MIXED.pattern
    for pattern in ((second, second), (first, first), (first, LayerConfig(NoPosition(), Sliding(3)))):
        other = full_logits(MIXED.replace(pattern=pattern), parameters_of(MIXED), text(2), whole(2))
        assert relative_error(other, logits) > 1e-3


@pytest.mark.parametrize("loop", ["scan", "unroll"])
def test_rematerialization_changes_cost_alone(loop):
    results, operations = {}, {}
    for policy in REMATERIALIZATION:
        config = TINY.replace(layer_loop=loop, rematerialize=policy)
        arguments = (parameters_of(config), text(2), whole(2), random(2, LENGTH, VOCABULARY))
        program = logits_and_gradient.lower(config, *arguments).compile()
        results[policy], operations[policy] = program(*arguments), program.cost_analysis()["flops"]
    for policy in REMATERIALIZATION:
        assert relative_error(results[policy], results["none"]) < 1e-6
    # More is computed again than the compiler merged with the forward pass: else nothing would be saved.
    assert 1.02 * operations["none"] < operations["dots"] and 1.02 * operations["dots"] < operations["full"]


def variants():
    for name in ("gelu", "swiglu"):  # one that gates, one that does not; tests of activations have them all
        yield f"feed_forward.name={name}", {"feed_forward": FeedForwardConfig(name)}
    yield "feed_forward.bias=True", {"feed_forward": FeedForwardConfig(bias=True)}
    for name in NORMS:
        yield f"norm.name={name}", {"norm": NormConfig(name)}
    for name in EMBEDDINGS:
        yield f"embeddings={name}", {"embeddings": name}


VARIANTS = dict(variants())
DEFAULTS = {"feed_forward.name=gelu", "norm.name=rms", "embeddings=tied"}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_uses_all_its_parameters_causally(changes):
    config = TINY.replace(**changes)
    parameters = parameters_of(config)
    logits, gradient = evaluate(config)
    for path, value in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(value).all() and np.abs(value).max() > 0, jax.tree_util.keystr(path)
    later = text(2).at[:, 8:].set((text(2)[:, 8:] + 1) % VOCABULARY)
    changed, _ = logits_and_gradient(config, parameters, later, whole(2), random(2, LENGTH, VOCABULARY))
    np.testing.assert_array_equal(changed[:, :8], logits[:, :8])
    assert (np.abs(changed[:, 8:] - logits[:, 8:]).max(axis=-1) > 0).all()


def test_variants_differ():
    logits = {name: np.asarray(evaluate(TINY.replace(**changes))[0]) for name, changes in VARIANTS.items()}
    different = [name for name in VARIANTS if name not in DEFAULTS]
    for i, name in enumerate(different):
        for other in ["norm.name=rms", *different[:i]]:
            assert relative_error(logits[name], logits[other]) > 1e-3, (name, other)
    for name in DEFAULTS:
        np.testing.assert_array_equal(logits[name], logits["norm.name=rms"])


def test_tied_embeddings_are_the_output_matrix():
    separate = TINY.replace(embeddings="separate")
    tied, apart = parameters_of(TINY), parameters_of(separate)
    assert output_matrix(TINY, tied) is tied["embedding"] and "output_embedding" not in tied
    assert output_matrix(separate, apart) is apart["output_embedding"]
    both = tied | {"output_embedding": tied["embedding"]}
    got = full_logits(separate, both, text(1), whole(1))
    np.testing.assert_array_equal(got, full_logits(TINY, tied, text(1), whole(1)))


def test_a_soft_cap_bounds_logits():
    hidden, matrix = 50 * random(3, 7, 16), random(VOCABULARY, 16, seed=1)
    plain = to_logits(TINY, {"embedding": matrix}, hidden)
    np.testing.assert_allclose(plain, jnp.einsum("bld,vd->blv", hidden, matrix), rtol=1e-5, atol=1e-3)
    capped = to_logits(TINY.replace(logit_soft_cap=5.0), {"embedding": matrix}, hidden)
    np.testing.assert_allclose(capped, 5 * np.tanh(plain / 5), rtol=1e-5, atol=1e-6)
    assert np.abs(plain).max() > 50 and np.abs(capped).max() <= 5


def test_dropout_follows_its_key_and_can_be_off():
    config = TINY.replace(dropout=0.5)
    parameters = parameters_of(config)

    @compiled
    def dropped(key):
        model, where = Transformer(config), whole(2)
        return model.apply({"params": parameters}, text(2), where, deterministic=False, rngs={"dropout": key})[0]

    one, again, other = (dropped(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert relative_error(other, one) > 0.1
    off = full_logits(config, parameters, text(2), whole(2))  # deterministic unless asked otherwise
    np.testing.assert_array_equal(off, full_logits(TINY, parameters, text(2), whole(2)))
    assert relative_error(to_logits(config, parameters, one), off) > 0.1


@pytest.mark.parametrize("deterministic", [False, True])
def test_dropout_stands_after_the_embeddings_and_every_sublayer(deterministic):
    config = TINY.replace(dropout=0.5, layer_loop="unroll")
    parameters, key, found = parameters_of(config), jax.random.key(0), []

    def intercept(method, arguments, keywords, context):
        if isinstance(context.module, nn.Dropout):
            found.append((context.module.rate, context.module.deterministic))
        return method(*arguments, **keywords)

    def run(parameters, key):
        model, where = Transformer(config), whole(1)
        return model.apply({"params": parameters}, text(1), where, deterministic=deterministic, rngs={"dropout": key})

    with nn.intercept_methods(intercept):
        jax.eval_shape(run, parameters, key)
    assert found == [(0.5, deterministic)] * (1 + 2 * config.layers)


def test_bfloat16_computes_with_float32_parameters():
    config = TINY.replace(dtype="bfloat16")
    fresh = nn.meta.unbox(jax.eval_shape(lambda: init_parameters(config, 0)))
    assert {x.dtype for x in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}
    hidden, _ = jax.eval_shape(lambda p: Transformer(config).apply({"params": p}, text(2), whole(2)), fresh)
    assert hidden.dtype == jnp.bfloat16
    logits, wanted = (full_logits(c, parameters_of(TINY), text(2), whole(2)) for c in (config, TINY))
    assert logits.dtype == jnp.float32
    assert 1e-4 < relative_error(logits, wanted) < 0.03


def test_fresh_parameters_follow_the_seed_and_start_at_the_stated_sizes():
    config = TINY.replace(width=64, head_size=None, layers=8, vocabulary_size=512)
    init = compiled(init_parameters, static_argnums=0)
    parameters, again, other = (jax.tree.map(np.asarray, nn.meta.unbox(init(config, seed))) for seed in (0, 0, 1))
    assert relative_error(again, parameters) == 0 and relative_error(other, parameters) > 0.1
    layers = parameters["units"]["layer_0"]
    for part, name, fan_in, gain in (
        ("attention", "query", 64, 1),
        ("attention", "output", 64, 1 / 4),  # 1/√(2 · layers), so that the residual stream does not grow with depth
        ("feed_forward", "up", 64, 1),
        ("feed_forward", "output", 256, 1 / 4),
    ):
        kernel = layers[part][name]["kernel"]
        # A normal distribution that is cut off at two standard deviations keeps 0.88 of them.
        np.testing.assert_allclose(kernel.std(), 0.8796 * gain * fan_in**-0.5, rtol=0.02)
        assert all((kernel[i] != kernel[0]).all() for i in range(1, 8))
    assert (layers["attention_input_norm"]["scale"] == 1).all()


def test_fresh_parameters_need_no_fused_kernel():
    """Which takes whole documents, on a GPU alone."""
    fused, wanted = (
        jax.eval_shape(lambda config=config: init_parameters(config, 0))
        for config in (TINY.replace(attention="fused"), TINY)
    )
    assert nn.meta.unbox(fused) == nn.meta.unbox(wanted)


def test_a_learned_table_refuses_a_longer_text():
    config = TINY.replace(position=Learned(length=LENGTH - 1))
    with pytest.raises(InvalidInput, match=r"^length = 12 is not allowed; it must be at most 11: .*'learned'"):
        full_logits(config, parameters_of(config), text(1), whole(1))

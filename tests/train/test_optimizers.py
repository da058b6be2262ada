"""Optimizers by name: they learn, they decay only matrices, they clip."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from models.config import FeedForwardConfig, ModelConfig
from models.errors import InvalidInput
from models.experts import Dropless
from models.transformer import init_parameters
from train.optimizers import Adafactor, AdamW, Lion, Muon, Optimizer, decay_mask
from train.optimizers.muon import matrices

LAYERS = 3


def stacked_parameters(seed=0, width=8):
    """Named and shaped as a decoder scanned over its layers."""
    generator = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(generator.normal(size=shape) / 3, jnp.float32)

    return {
        "embed": {"embedding": normal(11, width)},
        "position": {"table": normal(16, width)},
        "units": {
            "attention_norm": {"scale": jnp.ones((LAYERS, width)), "bias": normal(LAYERS, width)},
            "attention": {
                "query": {"kernel": normal(LAYERS, width, 2, 4), "bias": normal(LAYERS, 2, 4)},
                "output": {"kernel": normal(LAYERS, 2, 4, width)},
            },
            "position": {"slopes": normal(LAYERS, 4)},
            "feed_forward": {"up": {"kernel": normal(LAYERS, width, 2 * width)}},
        },
        "final_norm": {"scale": jnp.ones(width)},
    }


def names(tree):
    is_leaf = lambda x: isinstance(x, optax.contrib.MuonDimensionNumbers)  # noqa: E731
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
    return {"/".join(k.key for k in path): leaf for path, leaf in leaves}


def test_decay_belongs_to_kernels_alone():
    mask = names(decay_mask(stacked_parameters()))
    assert {name for name, decays in mask.items() if decays} == {
        "units/attention/query/kernel",
        "units/attention/output/kernel",
        "units/feed_forward/up/kernel",
    }
    assert decay_mask({"kernel": jnp.ones(4)}) == {"kernel": False}


def test_decay_mask_sees_through_logical_metadata():
    boxed = {"kernel": nn.LogicallyPartitioned(jnp.ones((2, 2)), ("embed", "heads")), "bias": jnp.ones(2)}
    assert jax.tree.leaves(decay_mask(boxed)) == [False, True]


@pytest.mark.parametrize("name", list(Optimizer.registry))
def test_weight_decay_moves_kernels_and_nothing_else(name):
    parameters = stacked_parameters()
    optimizer = Optimizer.registry[name](weight_decay=0.5)
    transformation = optimizer.build(lambda step: 0.1)
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    updates, _ = jax.jit(transformation.update)(zeros, transformation.init(parameters), parameters)
    decays = names(decay_mask(parameters))
    for path, update in names(updates).items():
        expected = -0.1 * 0.5 * names(parameters)[path] if decays[path] else jnp.zeros_like(update)
        np.testing.assert_allclose(update, expected, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("name", list(Optimizer.registry))
def test_every_optimizer_learns_a_regression(name):
    x = jax.random.normal(jax.random.key(0), (64, 8))
    target = jnp.tanh(x @ jax.random.normal(jax.random.key(1), (8, 8)))
    parameters = {
        "units": {"kernel": 0.3 * jax.random.normal(jax.random.key(2), (2, 8, 8)), "bias": jnp.zeros((2, 8))},
        "norm": {"scale": jnp.ones(8)},
    }

    def loss(parameters):
        y = x * parameters["norm"]["scale"]
        for layer in range(2):
            y = jnp.tanh(y @ parameters["units"]["kernel"][layer] + parameters["units"]["bias"][layer])
        return jnp.mean((y - target) ** 2)

    transformation = Optimizer.registry[name]().build(lambda step: 3e-3)

    @jax.jit
    def step(carry, _):
        parameters, state = carry
        value, gradient = jax.value_and_grad(loss)(parameters)
        updates, state = transformation.update(gradient, state, parameters)
        return (optax.apply_updates(parameters, updates), state), value

    (parameters, _), losses = jax.lax.scan(step, (parameters, transformation.init(parameters)), length=300)
    assert np.all(np.isfinite(losses))
    assert losses[-1] < 0.5 * losses[0]


def test_clipping_bounds_the_gradient_and_zero_switches_it_off():
    gradient = {"kernel": jnp.full((2, 2), 5.0), "bias": jnp.zeros(2)}  # global norm 10
    parameters = jax.tree.map(jnp.zeros_like, gradient)

    def first_moment(clip):
        transformation = AdamW(clip=clip, b1=0.0).build(lambda step: 1.0)
        _, state = transformation.update(gradient, transformation.init(parameters), parameters)
        return state, optax.tree.get(state, "mu")["kernel"]

    clipped_state, clipped = first_moment(2.0)
    free_state, free = first_moment(0.0)
    np.testing.assert_allclose(clipped, 1.0, rtol=1e-6)
    np.testing.assert_allclose(free, 5.0, rtol=1e-6)
    assert jax.tree.structure(clipped_state) == jax.tree.structure(free_state)


def test_the_schedule_sets_the_size_of_a_step():
    parameters = {"kernel": jnp.zeros((2, 2))}
    transformation = Lion(weight_decay=0.0).build(lambda step: jnp.where(step < 1, 0.5, 0.25))
    state = transformation.init(parameters)
    for expected in (0.5, 0.25):
        updates, state = transformation.update({"kernel": jnp.ones((2, 2))}, state, parameters)
        np.testing.assert_allclose(updates["kernel"], -expected)


def test_muon_treats_a_stacked_kernel_as_each_layers_matrix_alone():
    gradient = stacked_parameters(seed=1)["units"]
    flat = {"query": (8, 8), "output": (8, 8), "up": (8, 16)}
    stacked = {"query": gradient["attention"]["query"], "output": gradient["attention"]["output"]}
    stacked = {name: {"kernel": leaf["kernel"]} for name, leaf in stacked.items()} | {
        "up": gradient["feed_forward"]["up"]
    }

    @jax.jit
    def step(gradient):
        transformation = Muon(clip=0.0).build(lambda step: 1.0)
        parameters = jax.tree.map(jnp.zeros_like, gradient)
        return transformation.update(gradient, transformation.init(parameters), parameters)[0]

    together = step({"units": stacked})["units"]
    for layer in range(LAYERS):
        alone = step({name: {"kernel": stacked[name]["kernel"][layer].reshape(shape)} for name, shape in flat.items()})
        for name, shape in flat.items():
            update = np.asarray(together[name]["kernel"][layer]).reshape(shape)
            np.testing.assert_allclose(update, alone[name]["kernel"], atol=1e-5)
            assert np.linalg.norm(update) / np.sqrt(update.size) == pytest.approx(0.2, rel=0.3)


@pytest.mark.parametrize("layer_loop", ["scan", "unroll"])
def test_the_decoders_kernels_decay_and_are_matrices_of_their_inputs_and_outputs(layer_loop):
    model = ModelConfig(vocabulary_size=11, layers=2, width=12, heads=4, kv_heads=2, head_size=6, layer_loop=layer_loop)
    boxed = jax.eval_shape(lambda: init_parameters(model, 0))
    parameters = nn.meta.unbox(boxed)
    decays, specs = names(decay_mask(parameters)), names(matrices(parameters))
    assert decays == {name: name.endswith("/kernel") for name in decays}
    assert set(specs) == {name for name, decays_ in decays.items() if decays_}
    matrix = {"query": (12, 24), "key": (12, 12), "value": (12, 12), "up": (12, 48)}
    matrix |= {"attention/output": (24, 12), "feed_forward/output": (48, 12)}
    seen = set()
    for name, parameter in names(parameters).items():
        for kind in matrix:
            if name.endswith(f"{kind}/kernel"):
                seen.add(kind)
                reduced, kept = ([parameter.shape[i] for i in axes] for axes in specs[name])
                assert (math.prod(reduced), math.prod(kept)) == matrix[kind], name
    assert seen == set(matrix)


def test_experts_kernels_decay_and_are_a_matrix_for_each_expert():
    experts = Dropless(count=3, width=5, shared=1)
    model = ModelConfig(
        vocabulary_size=11, layers=2, width=12, heads=2, experts=experts, feed_forward=FeedForwardConfig(bias=True)
    )
    parameters = nn.meta.unbox(jax.eval_shape(lambda: init_parameters(model, 0)))["units"]["layer_0"]["feed_forward"]
    decays = names(decay_mask({"units": parameters}))
    assert decays == {name: name.endswith("/kernel") for name in decays} and len(decays) == 9
    specs = names(matrices({"units": parameters}))
    of_experts = {name: (spec.reduction_axis, spec.output_axis) for name, spec in specs.items() if "experts" in name}
    assert of_experts == {f"units/experts/{part}/kernel": ((2,), (3,)) for part in ("up", "output")}
    assert specs["units/router/kernel"].reduction_axis == (1,)

    @jax.jit
    def step(gradient):
        transformation = Muon(clip=0.0).build(lambda step: 1.0)
        zeros = jax.tree.map(jnp.zeros_like, gradient)
        return transformation.update(gradient, transformation.init(zeros), zeros)[0]

    gradient = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 4)), jnp.float32)
    together = step({"experts": {"output": {"kernel": gradient}}})["experts"]["output"]["kernel"]
    for expert in range(3):
        alone = step({"up": {"kernel": gradient[expert]}})["up"]["kernel"]
        np.testing.assert_allclose(together[expert], alone, atol=1e-5)


def test_adafactor_keeps_rows_and_columns_of_stacked_kernels():
    parameters = {"kernel": jnp.zeros((2, 128, 256)), "bias": jnp.zeros((2, 128))}
    transformation = Adafactor().build(lambda step: 0.1)
    state = jax.eval_shape(transformation.init, parameters)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) < 2 * 128 * 256 / 10


@pytest.mark.parametrize(
    ("kind", "fields", "name"),
    [
        (AdamW, {"learning_rate": 0.0}, "learning_rate"),
        (AdamW, {"clip": -1.0}, "clip"),
        (AdamW, {"b1": 1.0}, "b1"),
        (AdamW, {"weight_decay": -0.1}, "weight_decay"),
        (Lion, {"b2": -0.1}, "b2"),
        (Adafactor, {"decay": 0.0}, "decay"),
        (Muon, {"momentum": 1.0}, "momentum"),
        (Muon, {"iterations": 0}, "iterations"),
    ],
)
def test_a_field_out_of_range_is_named(kind, fields, name):
    with pytest.raises(InvalidInput, match=f"^{name} = "):
        kind(**fields)


def test_an_unknown_optimizer_is_named_with_the_known_ones():
    with pytest.raises(InvalidInput, match=r"optimizer.name = 'sgd'.*adafactor, adamw, lion, muon"):
        Optimizer.registry["sgd"]

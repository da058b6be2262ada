"""Meshes, logical axes and batches; what needs several devices runs once in a process of its own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from models.errors import InvalidInput
from tests.devices import run_on_devices
from train.configuration import from_config_dict, to_config_dict
from train.sharding import (
    MESH_AXES,
    AxisRules,
    MeshConfig,
    ShardingConfig,
    batch_sharding,
    build_mesh,
    mesh_sizes,
    parameter_shardings,
    process_rows,
    put_batch,
    require_batch,
)


def abstract(**sizes):
    shape = tuple(sizes.get(axis, 1) for axis in MESH_AXES)
    return AbstractMesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def boxed(shape, axes):
    return nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, jnp.float32), axes)


def test_data_takes_the_devices_that_are_left():
    assert mesh_sizes(MeshConfig(), 8) == (8, 1, 1, 1, 1)
    assert mesh_sizes(MeshConfig(fsdp=2, tensor=2), 8) == (2, 2, 2, 1, 1)
    assert mesh_sizes(MeshConfig(data=2), 8) == (2, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("config", "devices", "message"),
    [
        (MeshConfig(fsdp=4, tensor=4), 8, "fsdp 4 × tensor 4 needs 16 devices, but there are only 8 devices"),
        (MeshConfig(data=2), 1, "data 2 needs 2 devices, but there are only 1 device"),
        (MeshConfig(fsdp=3), 8, "fsdp 3 takes 3 devices, which does not divide 8 devices"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused_with_its_sizes(config, devices, message):
    with pytest.raises(InvalidInput, match=message):
        mesh_sizes(config, devices)


@pytest.mark.parametrize("fields", [{"fsdp": -1}, {"tensor": 0}, {"data": 0}, {"data": -2}])
def test_only_data_may_be_left_open(fields):
    with pytest.raises(InvalidInput, match=f"^{next(iter(fields))} = "):
        MeshConfig(**fields)


def test_the_mesh_has_auto_axes():
    mesh = build_mesh(MeshConfig(), jax.devices()[:1])
    assert mesh.axis_names == MESH_AXES and set(mesh.axis_types) == {AxisType.Auto}


def test_rules_survive_configuration_and_refuse_unknown_axes():
    opened = to_config_dict(ShardingConfig())
    opened.rules.embed = ("data", "fsdp")
    closed = from_config_dict(ShardingConfig, opened)
    assert closed.rules.embed == ("data", "fsdp")
    for wrong in (("model",), ("fsdp", "fsdp")):
        opened.rules.embed = wrong
        with pytest.raises(InvalidInput, match=r"rules.embed = .* data, fsdp, tensor, sequence, expert"):
            from_config_dict(ShardingConfig, opened)


def test_logical_axes_map_to_mesh_axes():
    tree = {
        "embed": {"embedding": boxed((64, 32), ("vocabulary", "embed"))},
        "layers": {
            "query": {"kernel": boxed((3, 32, 4, 8), ("layers", "embed", "heads", "head_size"))},
            "norm": {"scale": boxed((3, 32), ("layers", None))},
        },
        "temperature": jax.ShapeDtypeStruct((), jnp.float32),
    }
    specs = jax.tree.map(lambda s: s.spec, parameter_shardings(abstract(fsdp=2, tensor=4), tree))
    assert specs == {
        "embed": {"embedding": PartitionSpec("tensor", "fsdp")},
        "layers": {
            "query": {"kernel": PartitionSpec(None, "fsdp", "tensor", None)},
            "norm": {"scale": PartitionSpec(None, None)},
        },
        "temperature": PartitionSpec(),
    }


def test_a_dimension_that_does_not_divide_is_named():
    tree = {"layers": {"query": {"kernel": boxed((32, 6), ("embed", "heads"))}}}
    with pytest.raises(InvalidInput, match=r"layers/query/kernel .*dimension 1 .*is 6, .*tensor = 4"):
        parameter_shardings(abstract(tensor=4), tree)


def test_two_axes_of_one_parameter_may_not_share_a_mesh_axis():
    rules = AxisRules(embed=("tensor",))
    with pytest.raises(InvalidInput, match="both embed and heads over tensor"):
        parameter_shardings(abstract(), {"kernel": boxed((4, 4), ("embed", "heads"))}, rules)


def test_batches_are_split_by_rows_and_columns():
    mesh = abstract(data=2, fsdp=2, sequence=2)
    assert batch_sharding(mesh, (8, 16)).spec == PartitionSpec(("data", "fsdp"), "sequence")
    assert batch_sharding(mesh, (8,)).spec == PartitionSpec(("data", "fsdp"))
    with pytest.raises(InvalidInput, match=r"train.length = 15 .* multiple of sequence = 2"):
        batch_sharding(mesh, (8, 15))
    with pytest.raises(InvalidInput, match=r"train.batch_size = 6 .* multiple of data × fsdp = 4"):
        batch_sharding(mesh, (6, 16))
    with pytest.raises(InvalidInput, match=r"train.batch_size = 1 "):
        require_batch(mesh, 1)


def test_one_process_holds_every_row():
    mesh = build_mesh(MeshConfig(), jax.devices()[:1])
    np.testing.assert_array_equal(process_rows(mesh, 5), np.arange(5))
    tokens = np.arange(10).reshape(5, 2)
    np.testing.assert_array_equal(put_batch(mesh, {"tokens": tokens})["tokens"], tokens)


EIGHT_DEVICES = """
    import jax, jax.numpy as jnp, numpy as np, flax.linen as nn
    from train.loss import cross_entropy
    from train.optimizers import Optimizer
    from train.sharding import MeshConfig, build_mesh, parameter_shardings, put_batch, state_shardings

    mesh = build_mesh(MeshConfig(fsdp=2, tensor=2))
    assert mesh.devices.shape == (2, 2, 2, 1, 1), mesh
    assert build_mesh(MeshConfig(data=2)).size == 2

    def boxed(shape, axes):
        return nn.LogicallyPartitioned(jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32), axes)

    tree = {
        "embed": {"embedding": boxed((16, 8), ("vocabulary", "embed"))},
        "units": {"up": {"kernel": boxed((3, 8, 8), ("layers", "embed", "feed_forward")), "bias": jnp.zeros((3, 8))}},
    }
    shardings = parameter_shardings(mesh, tree)
    parameters = jax.device_put(nn.meta.unbox(tree), shardings)
    batch = put_batch(mesh, {
        "targets": np.arange(32, dtype=np.int32).reshape(8, 4) % 16,
        "position": np.arange(32, dtype=np.int32).reshape(8, 4) % 4,
    })
    assert batch["targets"].sharding.shard_shape((8, 4)) == (2, 4)

    def loss(parameters, batch):
        x = parameters["embed"]["embedding"][batch["targets"]] + batch["position"][..., None]
        for layer in range(3):
            x += jnp.tanh(x @ parameters["units"]["up"]["kernel"][layer] + parameters["units"]["up"]["bias"][layer])
        losses = cross_entropy(x, parameters["embed"]["embedding"], batch["targets"], jnp.ones((8, 4)), chunk=16)
        return losses.total / losses.weight

    for name in Optimizer.registry:
        transformation = Optimizer.registry[name]().build(lambda step: 0.01)
        abstract = jax.eval_shape(transformation.init, parameters)
        of_state = state_shardings(mesh, abstract, shardings, parameters)
        state = jax.jit(transformation.init, out_shardings=of_state)(parameters)
        big = [x for x in jax.tree.leaves(state) if x.shape == (3, 8, 8)]
        assert big and all(x.addressable_shards[0].data.shape == (3, 4, 4) for x in big), name
        assert all(x.sharding.is_fully_replicated for x in jax.tree.leaves(state) if x.ndim == 0), name

        if name not in ("adamw", "muon"):
            continue

        def step(parameters, state, batch):
            gradient = jax.grad(loss)(parameters, batch)
            return transformation.update(gradient, state, parameters)

        sharded, _ = jax.jit(step, out_shardings=(shardings, of_state))(parameters, state, batch)
        single, _ = jax.jit(step)(*jax.device_put((parameters, state, batch), jax.devices()[0]))
        for a, b in zip(jax.tree.leaves(sharded), jax.tree.leaves(single)):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5, err_msg=name)
"""


def test_on_eight_devices_state_and_step_are_split_and_agree_with_one_device():
    run_on_devices(8, EIGHT_DEVICES)

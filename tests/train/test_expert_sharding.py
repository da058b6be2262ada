"""Experts split over the devices of the mesh axis `expert`, in a process with two devices of its own."""

from tests.devices import run_on_devices

TWO_DEVICES = """
    import functools
    import jax, jax.numpy as jnp, numpy as np, flax.linen as nn
    from jax.sharding import NamedSharding, PartitionSpec
    from models.experts import Dropless, ExpertLayer, TokenChoice
    from models.experts.layer import COLLECTION
    from models.feed_forward import FeedForwardKind
    from train.sharding import MeshConfig, build_mesh, parameter_shardings

    mesh = build_mesh(MeshConfig(expert=2))
    assert mesh.shape["expert"] == 2 and mesh.size == 2, mesh
    rng = np.random.default_rng(0)
    x, weight = (jnp.asarray(rng.normal(size=(2, 8, 6)), jnp.float32) for _ in range(2))
    real = jnp.ones((2, 8), bool)

    for mixture in (TokenChoice(count=4, capacity_factor=0.75), Dropless(count=4, shared=1)):
        module = ExpertLayer(mixture, FeedForwardKind("swiglu", bias=True), 10, training=True)
        boxed = jax.eval_shape(lambda: module.init(jax.random.key(0), x, real)["params"])
        shardings = parameter_shardings(mesh, boxed)
        parameters = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), jnp.float32), nn.meta.unbox(boxed))
        split = jax.device_put(parameters, shardings)
        kernel = split["experts"]["up"]["kernel"]
        assert kernel.addressable_shards[0].data.shape == (2, 6, 10) and len(kernel.addressable_shards) == 2
        assert split["router"]["kernel"].sharding.is_fully_replicated

        @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
        def evaluate(parameters, x):
            def objective(parameters, x):
                y, sown = module.apply({"params": parameters}, x, real, mutable=[COLLECTION])
                return jnp.vdot(y, weight) + sown[COLLECTION]["loss"], (y, sown[COLLECTION])
            return jax.grad(objective, (0, 1), has_aux=True)(parameters, x)

        one = evaluate(parameters, x)
        two = evaluate(split, jax.device_put(x, NamedSharding(mesh, PartitionSpec())))
        assert (one[1][1]["dropped_share"] > 0) == (mixture.name == "token_choice")
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(two), jax.tree.leaves(one), strict=True):
            a, b = np.asarray(a), np.asarray(b)
            assert np.abs(a - b).max() <= 1e-5 * max(np.abs(b).max(), 1e-3), (mixture.name, path)
"""


def test_split_over_two_devices_they_equal_one():
    """Outputs, gradients and what is said of the routing, with choices dropped and without."""
    run_on_devices(2, TWO_DEVICES)

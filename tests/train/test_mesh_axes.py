"""The compiled step under every axis of the mesh, in a process with four devices of its own."""

from tests.devices import run_on_devices

FOUR_DEVICES = """
    import jax, numpy as np
    from models.config import ModelConfig
    from models.experts import TokenChoice
    from models.positions import ALiBi
    from train.config import RunConfig, TrainingConfig
    from train.optimizers.adamw import AdamW
    from train.schedules import Cosine
    from train.sharding import MeshConfig, build_mesh, put_batch
    from train.step import Trainer
    from train.tokenizers.byte import Byte

    def losses(config, mesh, devices):
        mesh = build_mesh(mesh, devices)
        trainer = Trainer(config, config.filled_model(64), mesh)
        state, seen = trainer.initial(), []
        for step in range(3):
            text = np.random.default_rng(step).integers(0, 64, (4, 17), np.int32)
            ones = np.ones((4, 16), np.int32)
            rows = {"tokens": text[:, :-1], "targets": text[:, 1:], "weights": ones.astype(np.float32), "bytes": ones}
            state, metrics = trainer.step(state, put_batch(mesh, rows, config.sharding.rules))
            seen.append(float(metrics["loss"]))
        split = {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state.parameters)}
        assert split == {mesh.size}, split
        return seen

    jax.config.update("jax_disable_most_optimizations", True)
    config = RunConfig(
        model=ModelConfig(layers=1, width=16, heads=2, position=ALiBi(), experts=TokenChoice(count=4)),
        tokenizer=Byte(),
        train=TrainingConfig(length=16, batch_size=4, steps=3),
        optimizer=AdamW(learning_rate=1e-2),
        schedule=Cosine(warmup=1),
    )
    one = losses(config, MeshConfig(), jax.devices()[:1])
    for mesh in (MeshConfig(tensor=2, sequence=2), MeshConfig(fsdp=2, expert=2)):
        np.testing.assert_allclose(losses(config, mesh, jax.devices()), one, rtol=1e-5, err_msg=str(mesh))
"""


def test_tensor_sequence_and_expert_give_the_losses_of_one_device():
    run_on_devices(4, FOUR_DEVICES)

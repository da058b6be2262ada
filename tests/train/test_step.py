"""The compiled step: what it computes does not depend on how it is computed, and what is not finite changes nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.config import ModelConfig
from models.experts import TokenChoice
from train import step as step_module
from train.batches import Batches, Documents
from train.config import RunConfig, TrainingConfig
from train.corpora.corpus import Document
from train.data import DataConfig
from train.metrics import numbers
from train.optimizers import Optimizer
from train.optimizers.adamw import AdamW
from train.schedules import Cosine, Schedule
from train.sharding import MeshConfig, build_mesh
from train.step import Trainer
from train.store import TokenStore
from train.tokenizers.byte import Byte, ByteTokenizer

TEXT = "A few words, then a few more; enough to fill several rows of sixteen bytes, which is all that is asked. "
MODEL = ModelConfig(vocabulary_size=257, layers=1, width=16, heads=2)
TRAINING = TrainingConfig(length=16, batch_size=4, steps=6)
RUN = RunConfig(
    model=MODEL, tokenizer=Byte(), train=TRAINING, optimizer=AdamW(learning_rate=1e-2), schedule=Cosine(warmup=2)
)


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Compiling is most of the time here, and unoptimized machine code computes the same."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    documents = [Document("a", TEXT * 3), Document("b", TEXT[:40]), Document("c", TEXT[40:47])]
    return TokenStore.build(tmp_path_factory.mktemp("store"), documents, ByteTokenizer())


@pytest.fixture
def batches(store):
    def of(packing="windows"):
        return Batches(store, length=16, batch_size=4, packing=packing, seed=0)

    return of


def changed(**changes) -> RunConfig:
    return dataclasses.replace(RUN, **changes)


def trainer(config: RunConfig) -> Trainer:
    mesh = build_mesh(MeshConfig(data=1), jax.devices()[:1])
    return Trainer(config, config.filled_model(257), mesh)


def after(compiled: Trainer, batches, steps=2):
    """Metrics of each of some steps, and the state after the last."""
    state, metrics = compiled.initial(), []
    for step in range(steps):
        state, values = compiled.step(state, batches[step])
        metrics.append(numbers(values))
    return metrics, jax.device_get(state)


@pytest.fixture(scope="module")
def compiled():
    """The plain run's functions."""
    return trainer(RUN)


@pytest.fixture(scope="module")
def plain(compiled, store):
    """Two steps of the plain run."""
    return after(compiled, Batches(store, length=16, batch_size=4, packing="windows", seed=0))


def assert_close(one, other, tolerance):
    for first, second in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(first, second, rtol=0, atol=tolerance * max(np.abs(second).max(), 1e-3))


def differ(one, other):
    return any((a != b).any() for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def observed_gradient(config, batch):
    model = config.filled_model(257)
    parameters = jax.jit(lambda: step_module.nn.meta.unbox(step_module.init_parameters(model, 0)))()
    return jax.jit(
        lambda parameters, batch: step_module.gradients(config, model, parameters, batch, jax.random.key(0), 1)
    )(parameters, batch)


def first_gradient(config, batch):
    gradient, sums, observed, weight = observed_gradient(config, batch)
    assert bool(observed) == isinstance(config.model.experts, TokenChoice)
    return gradient, sums, weight


@pytest.mark.parametrize("count", [2, 4])  # 4: a row a part, which is packed like any other
def test_accumulated_gradients_are_those_of_the_whole_batch(store, count):
    # The last rows: one holds two documents; one is padded, which carries no weight, so that parts weigh differently.
    packed = Documents(store, 16)
    batch = packed.gather(np.arange(packed.rows - 4, packed.rows))
    assert (batch["document"].max(axis=1) > 0).any()
    rows = batch["weights"].sum(axis=1)
    assert rows[0::2].sum() != rows[1::2].sum()
    whole = first_gradient(RUN, batch)
    parts = first_gradient(changed(train=dataclasses.replace(TRAINING, accumulation=count)), batch)
    assert_close(parts, whole, 1e-6)


def test_a_loss_in_chunks_gives_the_same_step(batches, plain, monkeypatch):
    asked = []

    def small(tokens, vocabulary):
        asked.append((tokens, vocabulary))
        return 8

    monkeypatch.setattr(step_module, "chunk_tokens", small)
    metrics, state = after(trainer(RUN), batches())
    assert asked and set(asked) == {(64, 257)}
    for one, other in zip(metrics, plain[0], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
    assert_close(state.parameters, plain[1].parameters, 1e-5)


def test_documents_pack_and_train(batches):
    metrics, _ = after(trainer(changed(data=DataConfig(packing="documents"))), batches("documents"), steps=6)
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert metrics[0]["scored_tokens"] == batches("documents")[0]["weights"].sum()


def test_dropout_differs_by_seed_and_by_step_and_repeats(batches, plain):
    dropping = dataclasses.replace(MODEL, dropout=0.5)
    first, second = (trainer(changed(seed=seed, model=dropping)) for seed in (0, 1))
    (metrics, state), again = after(first, batches()), after(first, batches())
    assert metrics == again[0] and not differ(state, again[1])
    assert differ(state.parameters, after(second, batches())[1].parameters)
    # The same seed without dropout starts from the same weights, and sees another loss.
    assert metrics[0]["loss"] != plain[0][0]["loss"]
    at_step_1 = first.initial().replace(step=jnp.int32(1))
    assert float(first.step(at_step_1, batches()[0])[1]["loss"]) != metrics[0]["loss"]


def test_z_loss_changes_the_gradient_and_not_the_reported_loss(batches):
    batch = batches()[0]
    plain, (total, nats), _ = first_gradient(RUN, batch)
    with_z, (total_with_z, nats_with_z), _ = first_gradient(
        changed(train=dataclasses.replace(TRAINING, z_loss=1.0)), batch
    )
    assert float(nats_with_z) == pytest.approx(float(nats), rel=1e-6) == pytest.approx(float(total), rel=1e-6)
    # An untrained model's log Z is about log 257 at every token.
    assert float(total_with_z - nats_with_z) == pytest.approx(64 * np.log(257) ** 2, rel=0.1)
    assert differ(plain, with_z)


def test_layers_are_watched_without_changing_a_step(batches, plain):
    """In two parts, as in one: activations of the whole batch, and the gradient that is not of the embeddings."""
    one, two = (dataclasses.replace(TRAINING, watch_layers=True, accumulation=parts) for parts in (1, 2))
    gradient, _, observed, _ = observed_gradient(changed(train=one), batches()[0])
    compiled = trainer(changed(train=two))
    metrics = jax.device_get(compiled.step(compiled.initial(), batches()[0])[1])
    rms, norms = metrics.pop("layer_rms"), metrics.pop("layer_gradient_norm")
    assert rms.shape == norms.shape == (MODEL.layers,) and (rms > 0).all()
    assert rms == pytest.approx(np.sqrt(observed["layer_mean_square"]), rel=1e-5)
    within = sum((np.asarray(leaf, np.float64) ** 2).sum() for leaf in jax.tree.leaves(gradient["units"]))
    assert norms[0] == pytest.approx(np.sqrt(within), rel=1e-5)
    for name, value in metrics.items():
        assert float(value) == pytest.approx(plain[0][0][name], rel=1e-5), name


def mixed(**fields) -> RunConfig:
    experts = TokenChoice(count=4, width=8, capacity_factor=0.75, **fields)
    return changed(model=dataclasses.replace(MODEL, experts=experts))


def test_losses_of_experts_change_the_gradient_and_not_the_reported_loss(batches):
    batch = batches()[0]
    free, (total, nats), _ = first_gradient(mixed(balance_loss=0.0, router_z_loss=0.0), batch)
    held, (total_held, nats_held), weight = first_gradient(mixed(balance_loss=2.0, router_z_loss=0.5), batch)
    assert float(nats_held) == pytest.approx(float(nats), rel=1e-6) == pytest.approx(float(total), rel=1e-6)
    # Balanced about evenly by an untrained router; its four logits' log Z is about ln 4, and more.
    assert 2 + 0.5 * np.log(4) ** 2 < float(total_held - nats_held) / float(weight) < 6
    router, router_held = (g["units"]["layer_0"]["feed_forward"]["router"]["kernel"] for g in (free, held))
    assert np.abs(router_held - router).max() > 1e-3


def test_metrics_of_experts_are_means_over_the_parts_of_a_batch(batches):
    """With padding in them."""
    config = dataclasses.replace(mixed(), train=dataclasses.replace(TRAINING, accumulation=2))
    metrics, _ = after(trainer(config), batches("documents"), steps=6)
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    layer = {name.removeprefix("layer_0/"): value for name, value in metrics[0].items() if name.startswith("layer_0/")}
    load = layer.pop("expert_load")
    assert sum(load) == pytest.approx(1) and min(load) > 0
    assert {*layer} == {"balance_loss", "router_z_loss", "router_entropy", "dropped_share"}
    assert 0 < layer["dropped_share"] < 0.5 and 0 < layer["router_entropy"] <= np.log(4)


NAMES = list(Optimizer.registry)


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [(NAMES[i % len(NAMES)], name) for i, name in enumerate(Schedule.registry)]
    + [(name, "cosine") for name in NAMES[len(list(Schedule.registry)) :]],
)
def test_every_optimizer_and_schedule_learns(batches, optimizer, schedule):
    config = changed(
        optimizer=Optimizer.registry[optimizer](learning_rate=3e-3), schedule=Schedule.registry[schedule](warmup=2)
    )
    same = [batches()[0]] * 4
    metrics, state = after(trainer(config), same, steps=4)
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert metrics[0]["learning_rate"] == pytest.approx(1.5e-3) and metrics[1]["learning_rate"] == pytest.approx(3e-3)
    assert int(state.step) == 4 and int(state.skipped) == 0


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(batches, compiled, plain):
    state = compiled.initial()
    before = jax.device_get((state.parameters, state.optimizer))
    bad = batches()[0]
    bad = bad | {"weights": bad["weights"] * np.float32(np.nan)}
    for count in (1, 2):
        state, metrics = compiled.step(state, bad)
        assert int(metrics["skipped"]) == count and int(state.step) == count
        assert float(metrics["learning_rate"]) == pytest.approx(plain[0][0]["learning_rate"])
        assert not np.isfinite(float(metrics["loss"]))
        assert not differ((state.parameters, state.optimizer), before)
    state, metrics = compiled.step(state, batches()[0])
    assert int(metrics["skipped"]) == 0 and differ(state.parameters, before[0])
    # The optimizer's own count was held too: the first step that counts is the same as without the skipped ones.
    assert float(metrics["loss"]) == plain[0][0]["loss"]
    assert float(metrics["learning_rate"]) == pytest.approx(plain[0][0]["learning_rate"])


def test_an_update_that_overflows_is_skipped(batches):
    """The loss and the gradient are finite, and only what they would do is not."""
    metrics, state = after(trainer(changed(optimizer=AdamW(learning_rate=1e30))), batches(), steps=1)
    assert np.isfinite(metrics[0]["loss"]) and np.isfinite(metrics[0]["gradient_norm"])
    assert metrics[0]["skipped"] == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.parameters))


def test_metrics_are_per_scored_token_and_byte(batches, plain):
    first = plain[0][0]
    batch = batches()[0]
    assert first["scored_tokens"] == batch["weights"].sum()
    expected = first["loss"] * first["scored_tokens"] / np.log(2) / batch["bytes"].sum()
    assert first["bits_per_byte"] == pytest.approx(expected, rel=1e-6)
    assert first["loss"] == pytest.approx(np.log(257), rel=0.05)  # it knows nothing yet

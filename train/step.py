"""One optimizer step as one compiled, sharded program: a pure function of state and batch."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from models.config import ModelConfig
from models.experts.layer import COLLECTION
from models.positions import Tokens
from models.positions.scheme import contiguous_tokens
from models.telemetry import layer_gradient_norms, layer_mean_squares
from models.transformer import Transformer, init_parameters, output_matrix
from train.config import RunConfig
from train.loss import Losses, chunk_tokens, cross_entropy
from train.optimizers.optimizer import updates_taken
from train.routing import routing_facts
from train.sharding import batch_devices, parameter_shardings, state_shardings

Array = jax.Array
Batch = dict[str, Array]


@flax.struct.dataclass
class TrainState:
    """step: int32, steps taken. parameters: nested dict. optimizer: optax state. skipped: int32, how many of the last
    steps in a row had a loss, gradient or update that was not finite, and so changed nothing."""

    step: Array
    parameters: Any
    optimizer: Any
    skipped: Array


def loss_of(
    model: ModelConfig,
    parameters: Any,
    batch: Batch,
    *,
    devices: int,
    z_loss: float = 0.0,
    key: Array | None = None,
    watch_layers: bool = False,
) -> tuple[Losses, dict[str, Array]]:
    """Summed losses of a batch (see train.loss.cross_entropy), and what was observed of its layers: metrics of experts'
    routing, none without experts. With a key, dropout, drawn positions and capacities are those of training; the losses
    that balance experts then join `total`, each token's share the same.

    devices: how many share the batch; decides with its size whether logits are computed in chunks.
    watch_layers: whether the mean square of the residual stream after each layer, float32 [layers], comes along.
    """
    tokens_BxL = batch["tokens"]
    if "document" in batch:
        where = Tokens(position=batch["position"], document=batch["document"])
    else:
        where = contiguous_tokens(tokens_BxL.shape[1])
    routes = key is not None and model.has_experts()
    (hidden_BxLxD, _), sown = Transformer(model).apply(
        {"params": parameters},
        tokens_BxL,
        where,
        deterministic=key is None,
        rngs=None if key is None else {"dropout": key, "positions": key},
        mutable=[COLLECTION] * routes + ["telemetry"] * watch_layers,
    )
    chunk = chunk_tokens(tokens_BxL.size // devices, model.vocabulary)
    losses = cross_entropy(
        hidden_BxLxD,
        output_matrix(model, parameters),
        batch["targets"],
        batch["weights"],
        soft_cap=model.logit_soft_cap,
        z_loss=z_loss,
        chunk=None if chunk is None else chunk * devices,
    )
    observed: dict[str, Array] = {}
    if watch_layers:
        observed["layer_mean_square"] = layer_mean_squares(model, sown["telemetry"])
    if routes:
        balancing, routing = routing_facts(model, sown[COLLECTION])
        losses = losses._replace(total=losses.total + losses.weight * balancing)
        observed |= routing
    return losses, observed


def gradients(config: RunConfig, model: ModelConfig, parameters: Any, batch: Batch, key: Array, devices: int):
    """Gradient of the mean loss per scored token, with the batch's summed losses (total, nats), what was observed and
    the sum of weights; computed in `accumulation` parts, over which observations are averaged."""
    weight = jnp.maximum(jnp.sum(jnp.broadcast_to(batch["weights"], batch["targets"].shape)), 1.0)

    def mean_loss(parameters, batch, key):
        drawing = key if model.differs_in_training() else None
        training = config.train
        losses, observed = loss_of(
            model,
            parameters,
            batch,
            devices=devices,
            z_loss=training.z_loss,
            key=drawing,
            watch_layers=training.watch_layers,
        )
        return losses.total / weight, ((losses.total, losses.nats), observed)

    differentiate = jax.grad(mean_loss, has_aux=True)
    parts = config.train.accumulation
    if parts == 1:
        gradient, (sums, observed) = differentiate(parameters, batch, key)
        return gradient, sums, observed, weight

    def part(x: Array) -> Array:
        # Every part takes every n-th row, so that it is spread over the devices as the batch is.
        return jnp.swapaxes(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 0, 1)

    def add(total, inputs):
        gradient, (sums, observed) = differentiate(parameters, *inputs)
        return jax.tree.map(jnp.add, total, (gradient, sums)), observed

    zero = (jax.tree.map(jnp.zeros_like, parameters), (jnp.zeros(()), jnp.zeros(())))
    split = {name: part(x) for name, x in batch.items()}
    (gradient, sums), observed = jax.lax.scan(add, zero, (split, jax.random.split(key, parts)))
    return gradient, sums, jax.tree.map(lambda x: x.mean(axis=0), observed), weight


class Trainer:
    """The compiled functions of one run on one mesh.

    step(state, batch) -> (state, metrics): donates the state. evaluate(parameters, batch) -> summed nats, weight and
    bytes. initial(): a fresh state, made in place on the mesh. abstract: the state's shapes, dtypes and shardings.
    """

    def __init__(self, config: RunConfig, model: ModelConfig, mesh: Mesh):
        rules = config.sharding.rules
        rate = config.schedule.build(config.optimizer.learning_rate, config.train.steps)
        optimizer = config.optimizer.build(rate)
        devices = batch_devices(mesh, rules)

        boxed = jax.eval_shape(lambda: init_parameters(model, config.seed))
        shardings = parameter_shardings(mesh, boxed, rules)

        def init() -> TrainState:
            parameters = nn.meta.unbox(init_parameters(model, config.seed))
            zero = jnp.zeros((), jnp.int32)
            return TrainState(zero, parameters, optimizer.init(parameters), zero)

        shapes = jax.eval_shape(init)
        placed = state_shardings(mesh, shapes, shardings, shapes.parameters)
        self.abstract: TrainState = jax.tree.map(
            lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding), shapes, placed
        )
        self.initial: Callable[[], TrainState] = jax.jit(init, out_shardings=placed)

        def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
            key = jax.random.fold_in(jax.random.key(config.seed), state.step)
            gradient, (total, nats), observed, weight = gradients(config, model, state.parameters, batch, key, devices)
            norm = optax.global_norm(gradient)
            updates, moments = optimizer.update(gradient, state.optimizer, state.parameters)
            # A finite gradient can still give an update that overflows: the learning rate may be absurd.
            finite = jnp.isfinite(total) & jnp.isfinite(norm) & jnp.isfinite(optax.global_norm(updates))
            parameters = optax.apply_updates(state.parameters, updates)
            parameters, moments = jax.tree.map(
                lambda new, old: jnp.where(finite, new, old),
                (parameters, moments),
                (state.parameters, state.optimizer),
            )
            skipped = jnp.where(finite, 0, state.skipped + 1)
            metrics = {
                "loss": nats / weight,
                "bits_per_byte": _bits_per_byte(nats, batch),
                "gradient_norm": norm,
                "learning_rate": rate(updates_taken(state.optimizer)),
                "skipped": skipped,
                "scored_tokens": weight,
            }
            if config.train.watch_layers:
                observed["layer_rms"] = jnp.sqrt(observed.pop("layer_mean_square"))
                observed["layer_gradient_norm"] = layer_gradient_norms(model, gradient)
            # Every process reads all of them.
            whole = NamedSharding(mesh, PartitionSpec())
            metrics |= {name: jax.lax.with_sharding_constraint(value, whole) for name, value in observed.items()}
            return TrainState(state.step + 1, parameters, moments, skipped), metrics

        def evaluate(parameters: Any, batch: Batch) -> dict[str, Array]:
            losses, _ = loss_of(model, parameters, batch, devices=devices)
            return {"nats": losses.nats, "weight": losses.weight, "bytes": jnp.sum(batch["bytes"], dtype=jnp.float32)}

        self.step = jax.jit(step, donate_argnums=0, out_shardings=(placed, None))
        self.evaluate = jax.jit(evaluate)


def _bits_per_byte(nats: Array, batch: Batch) -> Array:
    scored_bytes = jnp.sum(batch["bytes"], dtype=jnp.float32)
    return nats / jnp.log(2.0) / jnp.maximum(scored_bytes, 1.0)

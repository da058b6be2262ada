"""Training, from a configuration to a run folder: one linear trainer with visible sections."""

import dataclasses
import functools
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from models.accounting import active_parameter_count, parameter_count, training_flops_per_token
from models.errors import InvalidInput, require
from train.batches import Batches
from train.checkpoints import Checkpoints, saved_steps
from train.config import RunConfig, run_id
from train.configuration import to_plain
from train.data import Prepared, prepare
from train.files import write_json
from train.initial import read_initial
from train.lease import Lease
from train.metrics import MetricsWriter, numbers
from train.progress import Progress, peak_flops
from train.provenance import continued
from train.sharding import batch_devices, build_mesh, process_rows, put_batch, require_batch
from train.signals import STOP, handled_by
from train.step import Trainer, TrainState

# So many steps in a row that are not finite, and the run goes back to its last checkpoint.
SKIPPED_STEPS = 3
FINISHED = "finished.json"
PROVENANCE = "provenance.json"


class Interrupted(Exception):
    """Training was asked to stop; what it did is saved. The message says how to go on."""


class Diverged(RuntimeError):
    """The loss stayed non-finite after going back to the last checkpoint."""


def is_finished(folder: Path) -> bool:
    """Whether the run in `folder` took its last step and saved it."""
    return (folder / FINISHED).exists()


def train(config: RunConfig, folder: Path) -> None:
    """Trains, or goes on training, in `folder`; returns at once where that is finished.

    The folder gets config.json, provenance.json, tokenizer/, metrics.jsonl, tensorboard/, checkpoints/ and, at the end,
    finished.json. Raises InvalidInput for what a user can mend, Interrupted after ctrl-C or SIGTERM once the state is
    saved, Diverged where the loss is not finite twice over.
    """
    if is_finished(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with Lease(folder), _stop_requests() as stop:
        _train(config, folder, stop)


def _train(config: RunConfig, folder: Path, stop: "_Stop") -> None:
    # What is trained, and on what.
    mesh = build_mesh(config.sharding.mesh)
    _require_divisible(config, mesh)
    prepared = prepare(config.data, config.tokenizer)
    model = config.filled_model(prepared.tokenizer.vocabulary_size)
    trainer = Trainer(config, model, mesh)
    parameters = parameter_count(trainer.abstract.parameters)
    batches = _batches(config, prepared.train, mesh)
    held_out = _held_out_batches(config, prepared, mesh)
    _require_same_text(folder, prepared)
    begin = functools.partial(_begin, config, folder, trainer, prepared, mesh)

    # From the newest undamaged checkpoint, or from the beginning.
    checkpoints = Checkpoints(folder / "checkpoints", config.checkpoint.keep)
    with checkpoints:
        restored = checkpoints.restore(trainer.abstract.parameters, trainer.abstract.optimizer)
        state = begin() if restored is None else _resumed(trainer, restored)
        first = int(state.step)
        seconds_before = 0.0 if restored is None else restored.metadata["seconds"]
        # Batches that a roll-back left out: step n reads batch n + passed_over.
        passed_over = 0 if restored is None else restored.data["passed_over"]
        writes = jax.process_index() == 0
        if writes:
            active = active_parameter_count(model, trainer.abstract.parameters)
            _describe(config, folder, prepared, parameters, active, first)

        def save(state: TrainState, step: int) -> None:
            metadata = {
                "seconds": seconds_before + time.monotonic() - started,
                "tokenizer": prepared.tokenizer.hash,
                "vocabulary_size": model.vocabulary_size,
                "tokens": step * config.train.batch_size * config.train.length,
            }
            data = {"step": step, "seed": config.seed, "passed_over": passed_over}
            checkpoints.save(step, state.parameters, state.optimizer, data, metadata)

        # The loop: step n is dispatched before the metrics of step n - 1 are fetched, so that the device never waits.
        started = time.monotonic()
        writer = MetricsWriter(folder, first) if writes else _Silent()
        tokens_per_step = config.train.batch_size * config.train.length
        meter = _Meter(tokens_per_step, training_flops_per_token(model, config.train.length), mesh)
        with writer, Progress(config.train.steps, first) if writes else _Silent() as progress:
            if writes:
                progress.note(_greeting(config, folder, prepared, parameters, first))
            step, pending = first, None
            stop.begun = True
            stream = batches.iterate(step + passed_over)
            while step < config.train.steps:
                waiting = time.monotonic()
                batch = put_batch(mesh, next(stream), config.sharding.rules)
                meter.waited += time.monotonic() - waiting
                state, metrics = trainer.step(state, batch)
                step += 1
                failed = pending is not None and _report(config, pending, writer, progress, meter, seconds_before)
                pending = (step, metrics)
                at_end = step == config.train.steps
                looks = at_end or step % config.train.evaluate_every == 0
                stopping = stop.requested(step)
                saves = at_end or stopping or step % config.checkpoint.every == 0
                if looks or saves:
                    failed = _report(config, pending, writer, progress, meter, seconds_before) or failed
                    pending = None
                if failed:
                    state = _roll_back(trainer, checkpoints, begin, step, rolled_back=passed_over > 0)
                    # The text that led here is not read again (PaLM, Chowdhery et al. 2022, section 5.1).
                    passed_over += step - int(state.step)
                    step, pending = int(state.step), None
                    writer.rewind(step)
                    progress.note(
                        f"{SKIPPED_STEPS} steps in a row were not finite: back to step {step}, on with later text"
                    )
                    stream.close()
                    stream = batches.iterate(step + passed_over)
                    continue
                if looks:
                    with meter.paused():
                        writer.write(step, _look(trainer, state, held_out))
                # A state whose last step was skipped is as good as the one before, and finite.
                if saves:
                    with meter.paused():
                        save(state, step)
                if stopping and not at_end:
                    checkpoints.wait()
                    stream.close()
                    raise Interrupted(f"stopped at step {step} of {config.train.steps}, saved; run it again to go on")
            stream.close()
            checkpoints.wait()
        if writes:
            seconds = seconds_before + time.monotonic() - started
            write_json(folder / FINISHED, {"step": step, "seconds": seconds, "parameters": parameters})
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("finished")  # who looks for the file finds it


def _require_divisible(config: RunConfig, mesh: Mesh) -> None:
    """Raises InvalidInput where a batch, or a part of it, cannot be split over the devices."""
    rules, parts = config.sharding.rules, config.train.accumulation
    require_batch(mesh, config.train.batch_size, rules)
    shards = batch_devices(mesh, rules)
    require(
        config.train.batch_size // parts % shards == 0,
        "train.accumulation",
        parts,
        f"such that a part of train.batch_size = {config.train.batch_size} is a multiple of the {shards} devices "
        "a batch is split over",
    )


def _require_same_text(folder: Path, prepared: Prepared) -> None:
    """Raises InvalidInput where a run would go on with another text or tokenizer than it began with."""
    if not saved_steps(folder / "checkpoints"):
        return
    try:
        began = json.loads((folder / PROVENANCE).read_text())
    except (OSError, ValueError):
        raise InvalidInput(f"{folder} cannot go on: its {PROVENANCE} is missing or damaged") from None
    names = {"tokenizer_hash": "tokenizer", "data_hash": "training text", "held_out_hash": "held-out text"}
    for key, now in prepared.hashes.items():
        if began.get(key) != now:
            raise InvalidInput(
                f"{folder} cannot go on: it began with another {names[key]} than the configuration gives now; "
                "put the text back, or remove the folder to start anew"
            )


def _describe(config: RunConfig, folder: Path, prepared: Prepared, parameters: int, active: int, first: int) -> None:
    """Writes what the run is before it starts, or goes on from step `first`."""
    write_json(folder / "config.json", to_plain(config, RunConfig))
    facts = continued(folder / PROVENANCE, first) | {
        "run_id": run_id(config),
        **prepared.hashes,
        "tokenizer_report": dataclasses.asdict(prepared.tokenizer_report),
        "parameters": parameters,
        "active_parameters": active,
    }
    write_json(folder / PROVENANCE, facts)
    prepared.tokenizer.save(folder / "tokenizer")


def _greeting(config: RunConfig, folder: Path, prepared: Prepared, parameters: int, first: int) -> str:
    begun = "from scratch" if config.initial.run is None else f"from run {config.initial.identity()}"
    start = f"from step {first}" if first else begun
    return (
        f"{folder.name}: {parameters:,} parameters, {prepared.train.token_count:,} training tokens, "
        f"{config.train.steps} steps of {config.train.batch_size} × {config.train.length}, {start}"
    )


def _begin(config: RunConfig, folder: Path, trainer: Trainer, prepared: Prepared, mesh: Mesh) -> TrainState:
    """Step 0: with drawn parameters, or those of the run that this one starts from."""
    if config.initial.run is None:
        return trainer.initial()
    source = config.initial.folder(folder.parent)
    if not is_finished(source):
        problem = "is not finished" if source.exists() else "does not exist"
        raise InvalidInput(f"initial.run = {config.initial.run!r}: {source} {problem}; only a finished run can be used")
    parameters = read_initial(source, prepared.tokenizer.hash, trainer.abstract.parameters, mesh)
    return dataclasses.replace(trainer.initial(), parameters=parameters)


def _resumed(trainer: Trainer, restored: Any) -> TrainState:
    zero = np.zeros((), np.int32)
    step = jax.device_put(np.int32(restored.step), trainer.abstract.step.sharding)
    skipped = jax.device_put(zero, trainer.abstract.skipped.sharding)
    return TrainState(step, restored.parameters, restored.optimizer, skipped)


def _roll_back(
    trainer: Trainer, checkpoints: Checkpoints, begin: Callable[[], TrainState], step: int, rolled_back: bool
) -> TrainState:
    restored = checkpoints.restore(trainer.abstract.parameters, trainer.abstract.optimizer)
    if rolled_back:
        saved = "nothing was saved" if restored is None else f"step {restored.step} is saved"
        raise Diverged(
            f"loss, gradient or update is not finite at step {step}, again after going back; {saved}; "
            "a lower optimizer.learning_rate or a longer schedule.warmup may help"
        )
    return begin() if restored is None else _resumed(trainer, restored)


def _batches(config: RunConfig, store: Any, mesh: Mesh) -> Batches:
    # Processes that hold the same rows (a mesh axis such as tensor spans them) count as one host.
    shards = batch_devices(mesh, config.sharding.rules)
    here = process_rows(mesh, shards, config.sharding.rules)
    return Batches(
        store,
        length=config.train.length,
        batch_size=config.train.batch_size,
        packing=config.data.packing,
        seed=config.seed,
        host_index=int(here[0]) // len(here),
        host_count=shards // len(here),
    )


def _held_out_batches(config: RunConfig, prepared: Prepared, mesh: Mesh) -> list[dict[str, jax.Array]]:
    """The same few batches of held-out text for every look, kept on the devices."""
    try:
        batches = _batches(dataclasses.replace(config, seed=0), prepared.held_out, mesh)
    except InvalidInput as error:
        raise InvalidInput(f"the held-out text does not fit: {error}{config.data.corpus.split_advice()}") from None
    return [put_batch(mesh, batches[k], config.sharding.rules) for k in range(config.train.evaluation_batches)]


def _look(trainer: Trainer, state: TrainState, held_out: list[dict[str, jax.Array]]) -> dict[str, float]:
    sums = jax.device_get([trainer.evaluate(state.parameters, batch) for batch in held_out])
    nats, weight, count = (sum(float(s[name]) for s in sums) for name in ("nats", "weight", "bytes"))
    return {"held_out_loss": nats / max(weight, 1), "held_out_bits_per_byte": nats / math.log(2) / max(count, 1)}


def _report(config: RunConfig, pending, writer, progress, meter: "_Meter", seconds_before: float) -> bool:
    """Fetches the metrics of a step, shows them, and logs them when due. Whether too many steps were skipped."""
    step, metrics = pending
    due = step % config.train.log_every == 0 or step == config.train.steps or step == 1
    values = numbers(jax.device_get(metrics))
    skipped = int(values["skipped"])
    values |= meter.rates()
    progress.update(step, values)
    if skipped:
        progress.note(f"step {step} skipped: its loss, gradient or update is not finite")
    if due or skipped:
        tokens = step * meter.tokens_per_step
        seconds = seconds_before + meter.seconds()
        writer.write(step, values | {"tokens": tokens, "seconds": seconds})
    return skipped >= SKIPPED_STEPS


class _Meter:
    """Speed since the last rates() call, without what happened while paused; and the share of time spent waiting."""

    def __init__(self, tokens_per_step: int, flops_per_token: float, mesh: Mesh):
        self.tokens_per_step = tokens_per_step
        self.waited = 0.0
        self._flops_per_token = flops_per_token
        peak = peak_flops(mesh.devices.flat[0])
        self._peak = None if peak is None else peak * mesh.size
        self._started = self._last = time.monotonic()
        self._recent: list[float] = []

    def rates(self) -> dict[str, float]:
        now = time.monotonic()
        # The median of recent steps: the first one compiles, and some wait for a checkpoint.
        self._recent = [*self._recent[-19:], now - self._last]
        self._last = now
        per_second = self.tokens_per_step / max(float(np.median(self._recent)), 1e-9)
        rates = {"tokens_per_second": per_second, "data_wait_seconds": self.waited}
        if self._peak is not None:
            rates["model_flop_utilisation"] = per_second * self._flops_per_token / self._peak
        return rates

    def seconds(self) -> float:
        return time.monotonic() - self._started

    @contextmanager
    def paused(self) -> Iterator[None]:
        before = time.monotonic()
        yield
        self._last += time.monotonic() - before


class _Stop:
    """Whether ctrl-C or SIGTERM asked to stop; with several processes they agree on the step.

    Until steps are taken (`begun`) there is nothing to save, and a single process stops at once.
    """

    def __init__(self) -> None:
        self.begun = False
        self.signalled = False

    def requested(self, step: int) -> bool:
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.signalled


@contextmanager
def _stop_requests() -> Iterator[_Stop]:
    """Turns the first ctrl-C, SIGTERM or hang-up into a request to stop; a second one stops at once."""
    stop = _Stop()
    together = jax.process_count() > 1

    def handle(number, frame):
        if together:
            signal.raise_signal(signal.SIGTERM)
            return
        if stop.signalled:
            raise KeyboardInterrupt
        if not stop.begun:
            raise Interrupted("stopped before it took a step; run it again to go on")
        stop.signalled = True

    # Of several processes, the runtime itself listens for SIGTERM and tells the others.
    with handled_by(handle, [number for number in STOP if not (together and number == signal.SIGTERM)]):
        yield stop


class _Silent:
    """Stands for a writer or a progress display where another process has it."""

    def __enter__(self) -> "_Silent":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def write(self, *arguments: Any) -> None:
        pass

    update = note = rewind = write

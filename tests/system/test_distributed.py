"""One run in two processes of two virtual devices each, data × fsdp: the same numbers, one folder, one agreement."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from tests.system.tiny import ROOT, command, end, logged_steps, losses, read_json, run_config, start, write_study
from train.checkpoints import saved_steps
from train.loop import train
from train.metrics import METRICS_FILE, read_metrics

STEPS = 200
MESH = ("--config.sharding.mesh.data=2", "--config.sharding.mesh.fsdp=2")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("distributed"))


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def start_two(*arguments):
    together = ("--coordinator", free_address(), "--processes", 2)
    return [start("train", *arguments, *together, "--process", process, devices=2) for process in (0, 1)]


def run_folder(output):
    (folder,) = (output / "tiny" / "runs").iterdir()
    return folder


def test_two_processes_compute_what_one_does(study, tmp_path):
    train(run_config(study.parent), tmp_path / "single")
    ended = [end(process) for process in start_two(study, "--output", tmp_path, *MESH)]
    assert [one.status for one in ended] == [0, 0], ended
    folder = run_folder(tmp_path)
    one, two = losses(tmp_path / "single"), losses(folder)
    assert [step for step, _ in two] == list(range(1, 13))
    assert two[-1][1] == pytest.approx(one[-1][1], rel=1e-5)
    assert [loss for _, loss in two] == pytest.approx([loss for _, loss in one], rel=1e-5)
    looks = [
        [line["held_out_loss"] for line in read_metrics(run / METRICS_FILE) if "held_out_loss" in line]
        for run in (tmp_path / "single", folder)
    ]
    assert looks[1] == pytest.approx(looks[0], rel=1e-5)
    assert read_json(folder / "provenance.json")["process_count"] == 2
    # One process reads what two have written.
    evaluated = command("evaluate", folder)
    assert evaluated.status == 0, evaluated.err
    (table,) = (folder / "evaluation").iterdir()
    assert {row["status"] for row in read_json(table)["rows"]} == {"ok"}
    # And one process on one device goes on from it (in a folder of its own, as a mesh is part of a run's name).
    other = tmp_path / "other"
    folder.rename(other)
    (other / "finished.json").unlink()
    shutil.rmtree(other / "checkpoints" / "12")
    train(run_config(study.parent), other)
    assert [step for step, _ in losses(other)] == list(range(1, 13))
    assert losses(other)[-1][1] == pytest.approx(one[-1][1], rel=1e-5)


ROW_EACH = """
    import sys
    import jax, numpy as np
    from train.sharding import MeshConfig, build_mesh, put_batch

    process = int(sys.argv[2])
    jax.distributed.initialize(sys.argv[1], 2, process)
    rows = np.arange(6, dtype=np.int32).reshape(2, 3)
    tokens = put_batch(build_mesh(MeshConfig(tensor=2)), {"tokens": rows[process : process + 1]})["tokens"]
    assert tokens.shape == (2, 3), tokens.shape
    for shard in tokens.addressable_shards:
        assert shard.index[0].indices(2)[:2] == (process, process + 1), shard.index
        np.testing.assert_array_equal(shard.data, rows[process : process + 1])
"""


def test_two_processes_of_one_row_each_hold_a_batch_of_two():
    address = free_address()
    scripts = [sys.executable, "-c", textwrap.dedent(ROW_EACH), address]
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen([*scripts, str(process)], env=environment, stderr=subprocess.PIPE, text=True)
        for process in (0, 1)
    ]
    ended = [end(process) for process in processes]
    assert [one.status for one in ended] == [0, 0], ended


@pytest.mark.slow
def test_a_signal_to_one_of_two_stops_and_saves_both(study, tmp_path):
    longer = (f"--config.train.steps={STEPS}", "--config.checkpoint.every=50")
    processes = start_two(study, "--output", tmp_path, *MESH, *longer)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and all(process.poll() is None for process in processes):
        if any(logged_steps(run) > 2 for run in (tmp_path / "tiny" / "runs").glob("*")):
            break
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGTERM)
    ended = [end(process) for process in processes]
    assert [one.status for one in ended] == [0, 0], ended
    folder = run_folder(tmp_path)
    reached = saved_steps(folder / "checkpoints")[-1]
    assert all(f"stopped at step {reached} of {STEPS}, saved; run it again to go on" in one.out for one in ended)

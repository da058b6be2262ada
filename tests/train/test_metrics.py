"""The metrics file: whole lines, continuous over a resume, tolerant of a killed writer."""

import json
import math
import resource

import jax.numpy as jnp
import numpy as np
import pytest

from models.errors import InvalidInput
from train.metrics import METRICS_FILE, MetricsWriter, numbers, read_metrics


def write(folder, steps, last_step=None):
    with MetricsWriter(folder, last_step) as writer:
        for step in steps:
            writer.write(step, {"loss": float(step)})


def steps(folder):
    return [record["step"] for record in read_metrics(folder / METRICS_FILE)]


def test_a_line_is_readable_as_soon_as_it_is_written(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"loss": jnp.float32(2.5), "skipped": np.int64(3), "split": "validation"})
        assert read_metrics(tmp_path / METRICS_FILE) == [{"step": 1, "loss": 2.5, "skipped": 3, "split": "validation"}]


def test_vectors_are_lists_of_numbers():
    found = numbers({"loss": jnp.float32(2.5), "layer_0/expert_load": np.array([0.25, 0.75], np.float32)})
    assert found == {"loss": 2.5, "layer_0/expert_load": [0.25, 0.75]}
    assert type(found["loss"]) is float and all(type(value) is float for value in found["layer_0/expert_load"])


def test_numbers_that_are_not_finite_are_null(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"loss": math.nan, "norm": jnp.inf})
    assert json.loads((tmp_path / METRICS_FILE).read_text()) == {"step": 1, "loss": None, "norm": None}


def test_lists_are_written_number_by_number(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"layers": [1.5, math.inf, np.float32(2)]})
    assert read_metrics(tmp_path / METRICS_FILE) == [{"step": 1, "layers": [1.5, None, 2.0]}]


@pytest.mark.parametrize("tail", [b'{"step": 4, "lo', b'{"step"', b"\x00\x00\x00", b"\xff"])
def test_a_torn_last_line_is_left_out_and_removed_on_resume(tmp_path, tail):
    write(tmp_path, [1, 2, 3])
    with open(tmp_path / METRICS_FILE, "ab") as file:
        file.write(tail)
    assert steps(tmp_path) == [1, 2, 3]
    write(tmp_path, [4], last_step=3)
    assert steps(tmp_path) == [1, 2, 3, 4]
    assert len((tmp_path / METRICS_FILE).read_bytes().splitlines()) == 4


def test_resuming_removes_the_steps_that_will_be_done_again(tmp_path):
    write(tmp_path, [1, 2, 3, 4, 5])
    write(tmp_path, [4, 5, 6], last_step=3)
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert not list(tmp_path.glob("*.new"))


def test_rewinding_removes_what_is_written_again(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for step in (1, 2, 3, 4):
            writer.write(step, {"loss": 1.0})
        writer.rewind(2)
        writer.write(3, {"loss": 2.0})
    assert [record["loss"] for record in read_metrics(tmp_path / METRICS_FILE)] == [1.0, 1.0, 2.0]


def test_a_new_run_starts_an_empty_file(tmp_path):
    write(tmp_path, [1, 2])
    write(tmp_path, [1])
    assert steps(tmp_path) == [1]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    (tmp_path / METRICS_FILE).write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(InvalidInput, match="line 2 is damaged"):
        read_metrics(tmp_path / METRICS_FILE)


def test_a_failed_rewrite_leaves_the_old_file(tmp_path, monkeypatch):
    write(tmp_path, [1, 2, 3])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        MetricsWriter(tmp_path, last_step=1)
    assert steps(tmp_path) == [1, 2, 3]


def test_a_line_that_the_disk_takes_in_part_is_an_error(tmp_path):
    """A file that may not grow beyond a few bytes takes what fits, as a disk that is nearly full does."""
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"loss": 1.0})
        size, limits = (tmp_path / METRICS_FILE).stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, limits[1]))
        try:
            with pytest.raises(OSError, match="No space left on device"):
                writer.write(2, {"loss": 1.0})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert steps(tmp_path) == [1]


def test_tensorboard_gets_the_numbers(tmp_path):
    write(tmp_path, [1, 2])
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert events.read_bytes().count(b"loss") == 2

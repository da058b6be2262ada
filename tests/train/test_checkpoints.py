import json
import os
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from models.errors import InvalidInput
from train.checkpoints import CheckpointConfig, Checkpoints, restore_parameters, saved_steps
from train.checkpoints import saving as saving_module
from train.checkpoints.manifest import MANIFEST, damage, write_manifest
from train.checkpoints.restoring import ITEMS, newest_undamaged

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))


def random_bits(generator, shape, dtype):
    """Finite numbers of every kind: normal, subnormal, both zeros."""
    width = np.dtype(dtype).itemsize
    bits = generator.integers(0, 256, (*shape, width), dtype=np.uint8)
    bits[..., -1] &= 0xBF  # the exponent's top bit off: no infinities, no NaN
    bits[..., :2, :] = 0
    bits[..., 0, -1] = 0x80
    return jnp.asarray(bits.view(dtype).reshape(shape))


def state(seed=0, layers=3):
    generator = np.random.default_rng(seed)
    parameters = {
        "embedding": random_bits(generator, (16, 8), jnp.bfloat16),
        "layers": {"kernel": random_bits(generator, (layers, 8, 4), np.float32), "bias": jnp.zeros((layers, 4))},
        "scale": jnp.float32(seed),
    }
    optimizer = OPTIMIZER.init(parameters)
    return parameters, jax.tree.map(lambda leaf: leaf + seed, optimizer)


def abstract(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def save(folder, *steps, keep=2):
    with Checkpoints(folder, keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, *state(step), {"position": step}, {"hash": f"run {step}"})


def restore(folder, keep=2):
    with Checkpoints(folder, keep) as checkpoints:
        return checkpoints.restore(*map(abstract, state()))


def assert_same_bits(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def assert_is_step(restored, step):
    parameters, optimizer = state(step)
    assert restored.step == step
    assert_same_bits(restored.parameters, parameters)
    assert_same_bits(restored.optimizer, optimizer)
    assert restored.data == {"position": step} and restored.metadata == {"hash": f"run {step}"}


@pytest.fixture(scope="module")
def three_steps(tmp_path_factory):
    """A folder with the checkpoints of steps 1, 2 and 3; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("three") / "checkpoints"
    save(folder, 1, 2, 3, keep=3)
    return folder


@pytest.fixture
def folder(three_steps, tmp_path):
    return shutil.copytree(three_steps, tmp_path / "checkpoints")


def files_of(checkpoint):
    return sorted(path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file())


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x04
    path.write_bytes(content)


def test_configuration_refuses_what_makes_no_sense():
    assert CheckpointConfig() == CheckpointConfig(every=200, keep=2)
    with pytest.raises(InvalidInput, match="every = 0 "):
        CheckpointConfig(every=0)
    with pytest.raises(InvalidInput, match="keep = -1 "):
        CheckpointConfig(keep=-1)


def test_round_trip_is_bit_equal_also_after_the_folder_moved(three_steps, folder):
    assert_is_step(restore(three_steps), 3)
    assert_is_step(restore(folder), 3)


def test_nothing_saved_is_none_and_saving_prunes(tmp_path):
    assert restore(tmp_path / "empty") is None
    assert saved_steps(tmp_path / "nowhere") == []
    save(tmp_path, 1, 2, 3, 4)
    assert saved_steps(tmp_path) == [3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4", "empty"]


def test_saved_arrays_may_be_donated_at_once(tmp_path):
    advance = jax.jit(lambda x: x * 1.5 + 1, donate_argnums=0)
    x = jnp.arange(500_000, dtype=jnp.float32)
    with Checkpoints(tmp_path, 2) as checkpoints:
        expected = np.array(x)
        checkpoints.save(1, {"x": x}, {"count": jnp.int32(1)}, {}, {})
        for _ in range(5):
            x = advance(x)
    assert_same_bits(restore_parameters(tmp_path)[1], {"x": expected})


def test_a_flipped_bit_in_any_file_is_noticed(folder, capsys):
    names = files_of(folder / "3")
    assert {name.partition("/")[0] for name in names if "/" in name} == set(ITEMS)
    for name in names:
        path = folder / "3" / name
        intact = path.read_bytes()
        flip_a_bit(path)
        if "/" in name or name == MANIFEST:
            assert newest_undamaged(folder, ITEMS) == 2, name
            said = capsys.readouterr().err
            assert said.count("\n") == 1 and "step 3 (" in said and "step 2 is used instead" in said
            assert name == MANIFEST or name in said
        else:  # Orbax's time stamps are no part of the state
            assert_is_step(restore(folder), 3)
        path.write_bytes(intact)
    assert newest_undamaged(folder, ITEMS) == 3 and capsys.readouterr().err == ""


def test_the_previous_checkpoint_is_restored_and_the_damaged_one_saved_anew(folder, capsys):
    flip_a_bit(next(path for path in (folder / "3" / "parameters" / "d").iterdir()))
    with Checkpoints(folder, 3) as checkpoints:
        assert_is_step(checkpoints.restore(*map(abstract, state())), 2)
        assert "parameters/d/" in capsys.readouterr().err
        checkpoints.save(3, *state(3), {"position": 3}, {"hash": "run 3"})
    assert saved_steps(folder) == [1, 2, 3]
    assert_is_step(restore(folder), 3)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", [MANIFEST, "data/metadata", "optimizer/manifest.ocdbt"])
def test_missing_and_truncated_files_are_noticed(folder, name, capsys):
    os.truncate(folder / "3" / name, 5)
    (folder / "2" / name).unlink()
    assert saved_steps(folder) == [1]
    assert_is_step(restore(folder), 1)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "step 3 (" in said and "step 2 (" in said and "step 1 is used" in said


def test_a_manifest_that_leaves_an_item_out_is_incomplete(folder):
    shutil.rmtree(folder / "3" / "optimizer")
    write_manifest(folder / "3")
    assert damage(folder / "3", ITEMS) == f"{MANIFEST} is incomplete"


def test_when_all_are_damaged_nothing_starts_over(folder):
    for step in "123":
        (folder / step / MANIFEST).unlink()
    with pytest.raises(InvalidInput, match=r"every checkpoint in .* is damaged: step 3 .*step 2 .*step 1 "):
        restore(folder)
    with Checkpoints(folder, 2) as checkpoints, pytest.raises(InvalidInput, match="holds a checkpoint of step 3"):
        checkpoints.save(2, *state(2), {}, {})
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "3"]


def test_saving_the_same_step_again_does_nothing_and_an_older_one_is_refused(folder):
    with Checkpoints(folder, 3) as checkpoints:
        checkpoints.restore(*map(abstract, state()))
        checkpoints.save(3, *state(8), {}, {})
        checkpoints.save(4, *state(4), {"position": 4}, {"hash": "run 4"})
        checkpoints.save(4, *state(8), {}, {})
        with pytest.raises(InvalidInput, match="holds a checkpoint of step 4"):
            checkpoints.save(3, *state(3), {}, {})
    assert saved_steps(folder) == [2, 3, 4]
    assert_is_step(restore(folder), 4)


def test_a_mismatch_names_the_fields(three_steps):
    parameters, optimizer = map(abstract, state())
    other = {
        "embedding": jax.ShapeDtypeStruct((16, 8), jnp.float32),
        "layers": {
            "kernel": jax.ShapeDtypeStruct((4, 8, 4), jnp.float32),
            "gate": jax.ShapeDtypeStruct((3,), jnp.float32),
        },
        "scale": parameters["scale"],
    }
    for attempt in (
        lambda: Checkpoints(three_steps, 3).restore(other, optimizer),
        lambda: restore_parameters(three_steps, abstract_parameters=other),
    ):
        with pytest.raises(InvalidInput) as refusal:
            attempt()
        message = str(refusal.value)
        assert "parameters/embedding is saved as bfloat16[16, 8], expected float32[16, 8]" in message
        assert "parameters/layers/bias is unexpected (saved float32[3, 4])" in message
        assert "parameters/layers/gate is missing (expected float32[3])" in message
        assert "parameters/layers/kernel is saved as float32[3, 8, 4], expected float32[4, 8, 4]" in message
        assert "\n" not in message
    with pytest.raises(InvalidInput, match=r"optimizer/0/trace/embedding is missing .*; and \d+ more$"):
        Checkpoints(three_steps, 3).restore(parameters, abstract(optax.sgd(1e-3, 0.9).init(state()[0])))


@pytest.mark.parametrize("where", ["parameters", "optimizer"])
def test_a_state_that_is_not_finite_is_never_saved(tmp_path, where):
    parameters, optimizer = state()
    if where == "parameters":
        parameters["layers"]["kernel"] = parameters["layers"]["kernel"].at[1, 2, 3].set(jnp.nan)
    else:
        optimizer = jax.tree.map(lambda leaf: leaf * jnp.inf if leaf.ndim == 3 else leaf, optimizer)
    with (
        Checkpoints(tmp_path, 2) as checkpoints,
        pytest.raises(FloatingPointError, match=f"step 7 is not saved: NaN or infinity in {where}/.*layers/kernel"),
    ):
        checkpoints.save(7, parameters, optimizer, {}, {})
    assert list(tmp_path.iterdir()) == []


def test_parameters_alone(folder):
    for item in ("optimizer", "data"):  # evaluation needs neither
        shutil.rmtree(folder / "3" / item)
    step, parameters, metadata = restore_parameters(folder)
    assert (step, metadata) == (3, {"hash": "run 3"})
    assert_same_bits(parameters, state(3)[0])
    step, parameters, _ = restore_parameters(folder, step=2, abstract_parameters=abstract(state()[0]))
    assert step == 2
    assert_same_bits(parameters, state(2)[0])


def test_asking_for_parameters_that_are_not_there_names_what_is(folder, tmp_path):
    with pytest.raises(InvalidInput, match=r"checkpoint of step 9 in .*checkpoints .*does not exist; saved.* 1, 2, 3$"):
        restore_parameters(folder, step=9)
    with pytest.raises(InvalidInput, match="nowhere holds no checkpoint"):
        restore_parameters(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    flip_a_bit(folder / "2" / "metadata" / "metadata")
    with pytest.raises(InvalidInput, match=r"step 2 in .*metadata/metadata differs from its hash"):
        restore_parameters(folder, step=2)


def test_reading_leaves_a_writers_temporary_folder_alone_and_the_next_writer_removes_it(folder):
    temporary = folder / "4.orbax-checkpoint-tmp"
    temporary.mkdir()
    assert restore_parameters(folder)[0] == 3
    assert temporary.exists()
    with Checkpoints(folder, 3) as checkpoints:
        assert_is_step(checkpoints.restore(*map(abstract, state())), 3)
        checkpoints.save(4, *state(4), {}, {})
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3", "4"]


def test_a_full_disk_is_one_clear_error_and_costs_nothing_saved(folder, monkeypatch):
    def disk_full(checkpoint):
        raise OSError(28, "No space left on device", str(checkpoint))

    with Checkpoints(folder, 2) as checkpoints:
        with monkeypatch.context() as patched:
            patched.setattr(saving_module, "write_manifest", disk_full)
            checkpoints.save(4, *state(4), {}, {})
            with pytest.raises(InvalidInput, match=r"step 4: No space left on device; earlier .* intact: 1, 2, 3$"):
                checkpoints.wait()
        assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "3"]
        assert_is_step(checkpoints.restore(*map(abstract, state())), 3)
        checkpoints.save(4, *state(4), {"position": 4}, {"hash": "run 4"})  # space again
    assert saved_steps(folder) == [3, 4]
    assert_is_step(restore(folder), 4)


FILE_TOO_LARGE = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from models.errors import InvalidInput
from train.checkpoints import Checkpoints
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
small, large = ({"x": np.random.default_rng(0).normal(size=size)} for size in (10, 300_000))
try:
    with Checkpoints(Path(sys.argv[1]), 2) as checkpoints:
        checkpoints.save(1, small, {"count": np.int32(1)}, {}, {})
        checkpoints.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        checkpoints.save(2, large, {"count": np.int32(1)}, {}, {})
except InvalidInput as error:
    sys.exit(str(error))
"""


def test_the_disk_refusing_arrays_is_one_line_on_stderr(tmp_path):
    refused = subprocess.run(
        [sys.executable, "-c", FILE_TOO_LARGE, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert refused.stderr.endswith("step 2: File too large; earlier checkpoints are intact: 1\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1"]


KILLED = """
import os, signal, sys
import jax.numpy as jnp
from pathlib import Path
from train.checkpoints import Checkpoints, saving
folder, moment = Path(sys.argv[1]), sys.argv[2]
write = saving.write_manifest
def die(checkpoint):
    if checkpoint.name.startswith("3"):
        if moment == "after the manifest":
            write(checkpoint)
        os.kill(os.getpid(), signal.SIGKILL)
    write(checkpoint)
if moment != "any time":
    saving.write_manifest = die
with Checkpoints(folder, 2) as checkpoints:
    for step in range(1, 10_000):
        x = jnp.full((300, 300), step, jnp.float32)
        checkpoints.save(step, {"x": x}, {"mu": x}, {"position": step}, {})
        print(step, flush=True)  # the one before is finished
"""


@pytest.mark.parametrize("moment", ["before the manifest", "after the manifest", "any time"])
def test_kill_while_saving_loses_at_most_the_save_under_way(tmp_path, moment, capfd):
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), moment], stdout=subprocess.PIPE, text=True)
    last = 0
    for line in child.stdout:
        last = int(line)
        if moment == "any time" and last == 4:
            time.sleep(0.03)
            child.kill()
    child.communicate()
    assert child.returncode == -9 and last >= 3
    target = jax.ShapeDtypeStruct((300, 300), jnp.float32)
    with Checkpoints(tmp_path, 2) as checkpoints:
        restored = checkpoints.restore({"x": target}, {"mu": target})
        assert restored.step >= last - 1 and restored.data == {"position": restored.step}
        assert (restored.parameters["x"] == restored.step).all() and (restored.optimizer["mu"] == restored.step).all()
        checkpoints.save(restored.step + 1, restored.parameters, restored.optimizer, {}, {})
    assert saved_steps(tmp_path)[-1] == restored.step + 1
    assert capfd.readouterr().err == ""


OTHER_MESH = """
import sys
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from pathlib import Path
from train.checkpoints import Checkpoints, restore_parameters
folder = Path(sys.argv[1])
values = np.arange(64, dtype=np.float32).reshape(8, 8) / 7
wide = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
square = jax.make_mesh((2, 2), ("fsdp", "tensor"), axis_types=(AxisType.Auto,) * 2)
one, two = NamedSharding(wide, P("data")), NamedSharding(square, P("tensor", "fsdp"))
put = lambda sharding: jax.device_put(values, sharding)
with Checkpoints(folder, 2) as checkpoints:
    checkpoints.save(1, {"x": put(one)}, {"mu": put(one)}, {}, {"a": 1})
    target = jax.ShapeDtypeStruct((8, 8), np.float32, sharding=two)
    restored = checkpoints.restore({"x": target}, {"mu": target})
    for x in (restored.parameters["x"], restored.optimizer["mu"], restore_parameters(folder, 1, {"x": target})[1]["x"]):
        assert x.sharding == two and x.addressable_shards[1].data.shape == (4, 4)
        assert np.asarray(x).tobytes() == values.tobytes()
"""


def test_restores_under_another_mesh_and_on_one_device(tmp_path):
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", OTHER_MESH, str(tmp_path)], env=environment, check=True, timeout=60)
    step, parameters, metadata = restore_parameters(tmp_path)
    assert (step, metadata) == (1, {"a": 1})
    assert_same_bits(parameters, {"x": np.arange(64, dtype=np.float32).reshape(8, 8) / 7})


def test_the_manifest_lists_every_file_of_every_item(three_steps):
    entries = json.loads((three_steps / "3" / MANIFEST).read_text())
    assert sorted(entries) == [name for name in files_of(three_steps / "3") if "/" in name]

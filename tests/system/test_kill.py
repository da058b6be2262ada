"""kill -9 at random moments: a run loses the steps since its last checkpoint and nothing else."""

import random
import time

import pytest

from tests.system.tiny import CONFIG, assert_same_run, end, logged_steps, run_config, start, training, write_texts
from train.checkpoints import CheckpointConfig, saved_steps
from train.loop import is_finished, train

STEPS, EVERY = 240, 20
LONGER = CONFIG.replace(
    "    return to_config_dict(study_config(Path(__file__).parent))",
    f"""
    config = to_config_dict(study_config(Path(__file__).parent))
    config.train.steps, config.train.evaluate_every, config.checkpoint.every = {STEPS}, {EVERY}, {EVERY}
    return config
""",
)


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_never_was(tmp_path, kills):
    write_texts(tmp_path)
    file, output = tmp_path / "longer.py", tmp_path / "studies"
    file.write_text(LONGER)
    generator = random.Random(kills)
    going_on, reached, folder = 0, 0, tmp_path / "nowhere"
    for kill in range(kills):
        process = start("train", file, "--output", output)
        # A step not reached before, and then some more milliseconds: in a step, a save, a look. Or while it starts.
        moment = reached + generator.randint(1, STEPS // (kills + 1))
        seconds = generator.uniform(1, 6) if kill % 4 == 3 else 120
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline and logged_steps(folder) < moment:
            (folder,) = list((output / "tiny" / "runs").glob("*")) or [folder]
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.05))
        process.kill()
        ended = end(process)
        assert ended.status == -9, ended.err
        if "parameters," in ended.out:
            assert (f"from step {going_on}" if going_on else "from scratch") in ended.out
        saved = saved_steps(folder / "checkpoints")
        going_on, reached = saved[-1] if saved else 0, logged_steps(folder)
        # A save may be under way until the next one begins, which is after its step was logged.
        assert going_on >= (reached - 1) // EVERY * EVERY - EVERY
    ended = end(start("train", file, "--output", output))
    assert ended.status == 0, ended.err
    assert is_finished(folder) and not list((folder / "checkpoints").glob("*tmp*"))
    straight = run_config(
        tmp_path,
        train=training(steps=STEPS, evaluate_every=EVERY),
        checkpoint=CheckpointConfig(every=EVERY, keep=2),
    )
    train(straight, tmp_path / "straight")
    assert_same_run(folder, tmp_path / "straight")

"""What the tests of whole commands share: a cache apart from the user's own, and one study of two finished runs."""

import dataclasses
import json
from pathlib import Path

import jax
import pytest

from tests.system.tiny import Ended, end, start, write_study


@pytest.fixture(scope="package", autouse=True)
def surroundings(tmp_path_factory):
    """Commands in this process and those started as processes prepare text once, and compile quickly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGREACH_CACHE", str(tmp_path_factory.mktemp("cache")))
        # Unoptimized machine code computes the same, and compiling is most of the time here.
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
    jax.config.update("jax_disable_most_optimizations", False)


@dataclasses.dataclass(frozen=True)
class Swept:
    """A study of two points that `run` trained, evaluated and reported."""

    config: Path
    output: Path
    ended: Ended

    @property
    def folder(self) -> Path:
        return self.output / "tiny"

    def run_folder(self, label: str) -> Path:
        points = json.loads((self.folder / "study.json").read_text())["points"]
        (run,) = [point["run_id"] for point in points if point["label"] == label]
        return self.folder / "runs" / run


@pytest.fixture(scope="package")
def swept(tmp_path_factory, surroundings) -> Swept:
    folder = tmp_path_factory.mktemp("swept")
    config = write_study(folder)
    return Swept(config, folder / "studies", end(start("run", config, "--output", folder / "studies")))

"""What every test runs under: CPU unless a device is asked for, compiled programs kept between runs, and hypothesis.

`JAX_PLATFORMS=cuda pytest …` runs on a GPU, with the tests that need one. `--hypothesis-profile=search` looks for
counterexamples at random and longer; by default the examples are the same in every run, so what they compile is too.
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from train.cache import cache_folder

# Before the first import of jax: it reads these then. Commands that tests start inherit them.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "xla-tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

settings.register_profile("steady", deadline=None, max_examples=25, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=200)
settings.load_profile("steady")

MAPPINGS = Path("/proc/self/maps")


@pytest.fixture(autouse=True, scope="module")
def room_for_programs():
    """A compiled program on CPU takes some forty memory mappings, of the 65,530 that Linux gives a process by default;
    without one more, compiling dies of a segmentation fault. A module alone may take a third of them; so beyond a
    third, the programs of modules before are let go."""
    yield
    if MAPPINGS.exists() and MAPPINGS.read_bytes().count(b"\n") > 20_000:
        import jax  # not before the variables above are set

        jax.clear_caches()

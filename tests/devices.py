"""A process of its own with several devices, which a test's process has not."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path


def run_on_devices(count: int, code: str) -> str:
    """What Python code prints in a new process with `count` virtual CPU devices; fails where it fails."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout

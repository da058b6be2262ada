"""The launcher, from the outside: a copy in an empty folder, with a stand-in for Python that records its calls."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERBS = [
    "run",
    "train",
    "sweep",
    "evaluate",
    "search",
    "report",
    "sample",
    "pictures",
    "bench",
    "test",
    "conformance",
    "lock",
    "help",
]
PYTHON_NAMES = ["python3", "python3.13", "python3.12", "python3.11"]
LOCKS = ["requirements.lock", "requirements-cuda13.lock", "requirements-tpu.lock"]
NO_NETWORK = """\
WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError()': /simple/absl-py/
ERROR: Could not find a version that satisfies the requirement absl-py==2.5.1 (from versions: none)
ERROR: No matching distribution found for absl-py==2.5.1
"""

# Answers what launch.sh asks a Python: makes a .venv of itself, plays pip (PIP_SAYS: it fails; PIP_WAITS: it
# hangs until that file is there), and says how a module would have been started. What computes the stamp goes to a real
# Python.
STAND_IN = f"""#!/usr/bin/env bash
case "$*" in
    *_base_executable*) [[ -z ${{OLD:-}} ]] && echo "$0" ;;
    *ensurepip*) [[ -z ${{NO_VENV:-}} ]] ;;
    "-Im venv "*)
        echo venv >> "$CALLS"
        mkdir -p "$3/bin"
        cp "$0" "$3/bin/python"
        printf '%s\\n' '#!/bin/sh' 'echo "${{UV_SAYS-jax==0.10.2}}"' > "$3/bin/uv"
        chmod +x "$3/bin/uv" ;;
    "-Im pip "*)
        echo "pip ${{*: -1}}" >> "$CALLS"
        until [[ -e ${{PIP_WAITS:-/}} ]]; do sleep 0.05; done
        [[ -z ${{PIP_SAYS:-}} ]] || {{ printf '%s' "$PIP_SAYS"; exit 1; }} ;;
    "-m "*)
        printf '%s\\n' "$@" "cwd=$PWD" "path=$PYTHONPATH"
        exit "${{MODULE_STATUS:-0}}" ;;
    *) exec "{sys.executable}" "$@" ;;
esac
"""


class Clone:
    """A fresh copy of what a set-up needs, and a PATH on which every Python is the stand-in."""

    def __init__(self, folder: Path):
        self.root = folder / "clone"
        self.calls_file = folder / "calls"
        self.stamp = self.root / ".venv" / "longreach-stamp"
        self.root.mkdir()
        shutil.copy(ROOT / "launch.sh", self.root)
        for name in LOCKS:
            (self.root / name).write_text(f"# {name}\n")
        programs = folder / "bin"
        programs.mkdir()
        for name in PYTHON_NAMES:
            (programs / name).write_text(STAND_IN)
            (programs / name).chmod(0o755)
        self.environment = {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            "CALLS": str(self.calls_file),
            "TMPDIR": str(folder),
        }

    def start(self, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [self.root / "launch.sh", *arguments],
            # A shell cannot trap a signal that it inherits as ignored, as jobs in the background do with ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            cwd=cwd or self.root,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
        process = self.start(*arguments, cwd=cwd, **environment)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    @property
    def calls(self) -> list[str]:
        """The set-up's calls of venv and pip so far."""
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []

    @property
    def leftovers(self) -> list[str]:
        return sorted(path.name for path in self.root.glob(".venv*") if path.name not in (".venv.lock", ".venv.log"))


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def one_line(result: subprocess.CompletedProcess) -> str:
    """The last line of stderr, after at most the line that announces the set-up."""
    *before, line = result.stderr.splitlines()
    assert [text for text in before if not text.startswith("setting up .venv")] == []
    return line


@pytest.mark.parametrize("arguments", [["frobnicate"], ["--frobnicate"], ["lock", "extra"], ["help", "me"]])
def test_unknown_verb_or_option_shows_the_usage_and_exits_2(clone: Clone, arguments: list[str]):
    result = clone(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert arguments[-1] in result.stderr.splitlines()[0]
    assert "usage: ./launch.sh" in result.stderr
    assert clone.calls == []


@pytest.mark.parametrize("arguments", [["help"], ["-h"], ["--help"], ["lock", "--help"]])
def test_help_lists_every_verb_without_set_up(clone: Clone, arguments: list[str]):
    result = clone(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert [verb for verb in VERBS if not re.search(rf"^  {verb}\b", result.stdout, re.MULTILINE)] == []
    assert clone.calls == []


@pytest.mark.parametrize(
    ("environment", "status", "says"),
    [
        ({"LONGREACH_EXTRA": "rocm"}, 2, ["LONGREACH_EXTRA", "'rocm'", "cuda13 or tpu"]),
        ({"OLD": "1"}, 1, ["3.11", "python3.12", "LONGREACH_PYTHON"]),
        ({"OLD": "1", "LONGREACH_PYTHON": "python3"}, 2, ["LONGREACH_PYTHON", "'python3'", "3.11"]),
        ({"LONGREACH_PYTHON": "no-such-python"}, 2, ["LONGREACH_PYTHON", "'no-such-python'", "3.11"]),
        ({"NO_VENV": "1"}, 1, ["venv", "python3-venv"]),
    ],
)
def test_a_machine_that_will_not_do_gets_one_line(clone: Clone, environment: dict, status: int, says: list[str]):
    result = clone("run", **environment)
    assert result.returncode == status
    assert [text for text in says if text not in one_line(result)] == []
    assert (clone.calls, clone.leftovers) == ([], [])


def test_set_up_happens_once_and_arguments_pass_unchanged(clone: Clone, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    arguments = ["a b", "--config.model.width=64", ""]
    first = clone("train", *arguments, cwd=elsewhere)
    assert first.returncode == 0, first.stderr
    assert first.stderr == "setting up .venv (once, about a minute)\n"
    assert clone.calls == ["venv", f"pip {clone.root}/requirements.lock"]
    assert first.stdout.splitlines() == [
        *["-m", "experiments.train", *arguments],
        f"cwd={elsewhere}",
        f"path={clone.root}",
    ]
    second = clone("train", *arguments, cwd=elsewhere)
    assert (second.stdout, second.stderr) == (first.stdout, "")
    assert len(clone.calls) == 2
    assert clone.leftovers == [".venv"]


def test_each_verb_starts_its_module(clone: Clone):
    modules = {verb: f"experiments.{verb}" for verb in VERBS[:8]} | {"bench": "experiments.benchmarks"}
    assert {verb: clone(verb).stdout.splitlines()[1] for verb in modules} == modules
    assert clone().stdout.splitlines()[:3] == ["-m", "experiments.run", "experiments/configs/quickstart.py"]


def test_a_link_to_the_launcher_finds_the_repository(clone: Clone, tmp_path: Path):
    link = tmp_path / "longreach"
    link.symlink_to(clone.root / "launch.sh")
    result = subprocess.run([link], cwd=tmp_path, env=clone.environment, capture_output=True, text=True, timeout=60)
    assert f"{clone.root}/experiments/configs/quickstart.py" in result.stdout.splitlines()


def test_another_lock_sets_up_again(clone: Clone):
    clone("run")
    (clone.root / "requirements.lock").write_text("# newer\n")
    assert clone("run").returncode == 0
    assert len(clone.calls) == 4


def test_the_extra_picks_the_lock_and_stays(clone: Clone):
    clone("run", LONGREACH_EXTRA="cuda13")
    clone("run")
    assert clone.calls == ["venv", f"pip {clone.root}/requirements-cuda13.lock"]
    clone("run", LONGREACH_EXTRA="")
    assert clone.calls[2:] == ["venv", f"pip {clone.root}/requirements.lock"]


def test_without_network_one_line_and_nothing_changed(clone: Clone):
    result = clone("run", PIP_SAYS=NO_NETWORK)
    assert result.returncode == 1
    line = one_line(result)
    assert "could not install absl-py==2.5.1: no package registry can be reached; nothing was changed" in line
    assert Path(line.rsplit(": ", 1)[1]).read_text() == NO_NETWORK
    assert clone.leftovers == []
    assert clone("run").returncode == 0  # and the next start begins again
    assert clone.stamp.exists()
    assert not (clone.root / ".venv.log").exists()


def test_a_failed_set_up_keeps_the_environment_before_it(clone: Clone):
    clone("run")
    stamp = clone.stamp.read_text()
    (clone.root / ".venv" / "mine").touch()
    (clone.root / "requirements.lock").write_text("# newer\n")
    result = clone("run", PIP_SAYS="ERROR: Could not install packages: [Errno 28] No space left on device\n")
    assert result.returncode == 1
    assert "requirements.lock: Could not install packages: [Errno 28] No space left on device" in one_line(result)
    assert (clone.root / ".venv" / "mine").exists()
    assert clone.stamp.read_text() == stamp
    assert clone.leftovers == [".venv"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_set_up_leaves_no_stamp(clone: Clone, number: signal.Signals):
    process = clone.start("run", PIP_WAITS="/never")
    deadline = time.monotonic() + 30
    while len(clone.calls) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, number)
    process.communicate(timeout=30)
    assert process.returncode != 0
    if number == signal.SIGKILL:  # nobody could clean up
        assert clone.stamp.read_text() == "unfinished\n"
    else:
        wait_until_gone(clone)
    assert clone("run").returncode == 0
    assert len(clone.calls) == 4
    assert clone.leftovers == [".venv"]


def wait_until_gone(clone: Clone) -> None:
    """The set-up's own process cleans up; the launcher above it may end a moment earlier."""
    deadline = time.monotonic() + 30
    while clone.leftovers and time.monotonic() < deadline:
        time.sleep(0.02)
    assert clone.leftovers == []


def test_an_update_killed_on_the_way_puts_the_environment_before_it_back(clone: Clone):
    clone("run")
    (clone.root / ".venv" / "mine").touch()
    (clone.root / ".venv").rename(clone.root / ".venv.previous")
    (clone.root / ".venv").mkdir()
    clone.stamp.write_text("unfinished\n")
    assert clone("run").returncode == 0
    assert (clone.root / ".venv" / "mine").exists()
    assert len(clone.calls) == 2


def test_an_environment_of_the_users_own_is_left_alone(clone: Clone):
    (clone.root / ".venv").mkdir()
    (clone.root / ".venv" / "mine").touch()
    result = clone("run")
    assert result.returncode == 1
    assert "was not made by launch.sh" in one_line(result)
    assert (clone.root / ".venv" / "mine").exists()
    assert clone.calls == []


@pytest.mark.skipif(
    shutil.which("flock") is None, reason="launch.sh takes turns by flock, which this system does not have"
)
def test_two_first_starts_set_up_once(clone: Clone, tmp_path: Path):
    processes = [clone.start("run", PIP_WAITS=str(tmp_path / "go")) for _ in range(2)]
    said = sorted(process.stderr.readline() for process in processes if process.stderr)
    (tmp_path / "go").touch()
    more = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert said == ["setting up .venv (once, about a minute)\n", "waiting for another set-up of .venv\n"]
    assert more == ["", ""] and len(clone.calls) == 2


@pytest.mark.parametrize(
    ("arguments", "suite"),
    [([], "fast"), (["-q", "tests/x.py"], "fast"), (["-m", "slow"], "slow"), (["-m", ""], "all")],
)
def test_test_says_which_suite_and_passes_arguments(clone: Clone, tmp_path: Path, arguments: list[str], suite: str):
    result = clone("test", *arguments, cwd=tmp_path)
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"test suite: {suite}")
    assert lines[1 : 7 + len(arguments)] == ["-m", "pytest", "-n", "auto", "--maxprocesses", "4", *arguments]
    assert f"cwd={clone.root}" in lines


def test_conformance_is_a_folder_of_the_tests(clone: Clone):
    lines = clone("conformance", "-k", "alibi").stdout.splitlines()
    assert lines[1:10] == ["-m", "pytest", "-n", "auto", "--maxprocesses", "4", "tests/conformance", "-k", "alibi"]


@pytest.mark.parametrize(("pytest_status", "status"), [("0", 0), ("1", 1), ("4", 2)])
def test_test_exits_as_the_tests_do(clone: Clone, pytest_status: str, status: int):
    assert clone("test", MODULE_STATUS=pytest_status).returncode == status


def test_lock_writes_versions_or_changes_nothing(clone: Clone):
    before = [(clone.root / name).read_text() for name in LOCKS]
    result = clone("lock", UV_SAYS="--index" + "-url address")
    assert result.returncode == 1
    assert "requirements.lock would hold an address; nothing was changed" in result.stderr.splitlines()[-1]
    assert [(clone.root / name).read_text() for name in LOCKS] == before
    offline = clone("lock", PIP_SAYS=NO_NETWORK.replace("absl-py==2.5.1", "uv==1"))
    assert offline.returncode == 1
    assert "could not install uv==1: no package registry can be reached; nothing was changed" in one_line(offline)
    assert clone("lock").returncode == 0
    assert [(clone.root / name).read_text().splitlines()[1:] for name in LOCKS] == [["jax==0.10.2"]] * 3
    assert clone.leftovers == []


@pytest.mark.parametrize("name", LOCKS)
def test_locks_hold_versions_and_hashes_alone(name: str):
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    requirement = re.compile(r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==[0-9][0-9a-z.]*( ; [^:/]+)? \\")
    hash_line = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
    assert [line for line in lines if not requirement.fullmatch(line) and not hash_line.fullmatch(line)] == []
    unhashed = [a for a, b in zip(lines, [*lines[1:], ""], strict=True) if "==" in a and "--hash" not in b]
    assert unhashed == []
    jax = [line.removesuffix(" \\") for line in lines if line.startswith("jax==")]
    assert jax[0] == "jax==0.10.2 ; python_full_version < '3.12'"
    assert jax[1].endswith(" ; python_full_version >= '3.12'")
    extra = {"requirements.lock": "pytest", LOCKS[1]: "jax-cuda13-plugin", LOCKS[2]: "libtpu"}[name]
    assert any(line.startswith(f"{extra}==") for line in lines)


def test_ci_calls_the_test_command(tmp_path: Path):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    (tmp_path / "launch.sh").write_text('#!/bin/sh\necho "called with $*"\n')
    (tmp_path / "launch.sh").chmod(0o755)
    result = subprocess.run([tmp_path / ".ci" / "run"], cwd="/", capture_output=True, text=True, timeout=60, check=True)
    said, called = result.stdout.splitlines()
    assert "fast suite" in said
    assert called == "called with test"

"""The cache holds complete entries or none, whoever builds, fails, dies or comes at the same time."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from models.errors import InvalidInput
from train.cache import build_once, cache_folder

ROOT = Path(__file__).parents[2]


def start(script: str, *arguments: str) -> subprocess.Popen:
    """A Python process of its own that can import the project."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LONGREACH_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("LONGREACH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "longreach"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "longreach"


def test_builds_once_and_then_only_returns(tmp_path):
    builds = []

    def build(folder: Path) -> None:
        builds.append(folder)
        (folder / "inner").mkdir()
        (folder / "inner" / "value").write_text("42")

    entry = tmp_path / "deep" / "entry"
    assert build_once(entry, build) == entry
    assert build_once(entry, build) == entry
    assert (entry / "inner" / "value").read_text() == "42"
    assert len(builds) == 1 and builds[0] != entry
    assert {path.name for path in entry.parent.iterdir()} == {"entry", ".entry.lock"}


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), InvalidInput("no network")])
def test_a_failed_build_leaves_nothing_and_can_be_repeated(tmp_path, error):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise error

    entry = tmp_path / "entry"
    with pytest.raises(type(error)):
        build_once(entry, fail)
    assert [path.name for path in tmp_path.iterdir()] == [".entry.lock"]
    build_once(entry, lambda folder: (folder / "whole").touch())
    assert [path.name for path in entry.iterdir()] == ["whole"]


def test_no_space_is_one_line_that_names_the_variable(tmp_path):
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InvalidInput, match=r"no space.*LONGREACH_CACHE"):
        build_once(tmp_path / "entry", full)
    assert not (tmp_path / "entry").exists()


def test_an_unusable_cache_is_one_line_and_foreign_errors_pass_through(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="LONGREACH_CACHE"):
        build_once(tmp_path / "file" / "entry", lambda folder: None)

    def foreign(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "somewhere/else")

    with pytest.raises(PermissionError):
        build_once(tmp_path / "entry", foreign)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_line_that_names_the_folder_and_the_variable(tmp_path, monkeypatch, code):
    def refuse(file, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(InvalidInput) as caught:
        build_once(tmp_path / "entry", lambda folder: None)
    assert str(caught.value) == (
        f"the cache cannot hold {tmp_path / 'entry'}: its file system offers no locks ({os.strerror(code)}); "
        "LONGREACH_CACHE may name another folder"
    )
    assert not (tmp_path / "entry").exists()


def test_two_processes_build_one_entry_once(tmp_path):
    script = """
        import sys, time
        from pathlib import Path
        from train.cache import build_once
        folder = Path(sys.argv[1])
        def build(temporary):
            for i in range(5):
                (temporary / str(i)).write_text("x")
                time.sleep(0.1)
            print("built", flush=True)
        entry = build_once(folder / "entry", build)
        print(sorted(path.name for path in entry.iterdir()), flush=True)
    """
    processes = [start(script, str(tmp_path)) for _ in range(2)]
    output = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], output
    written = "".join(out for out, _ in output)
    assert written.count("built") == 1
    assert written.count("['0', '1', '2', '3', '4']") == 2


def test_a_killed_builder_leaves_nothing_that_is_believed(tmp_path):
    script = """
        import sys, time
        from pathlib import Path
        from train.cache import build_once
        def build(temporary):
            (temporary / "half").write_text("half")
            print("half", flush=True)
            time.sleep(60)
        build_once(Path(sys.argv[1]) / "entry", build)
    """
    process = start(script, str(tmp_path))
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (tmp_path / "entry").exists()
    assert (tmp_path / ".entry.building" / "half").exists()

    entry = build_once(tmp_path / "entry", lambda folder: (folder / "whole").touch())
    assert [path.name for path in entry.iterdir()] == ["whole"]
    assert not (tmp_path / ".entry.building").exists()

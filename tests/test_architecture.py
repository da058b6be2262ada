"""The house: rooms import one way, files stay short, and the text names no address of a registry or of a machine."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LONGEST_FILE = 600
# What each room may import of the house, itself included.
ROOMS = {
    "models": {"models"},
    "train": {"models", "train"},
    "experiments": {"models", "train", "experiments"},
}
HOUSE = {*ROOMS, "tests"}
# What a network computes knows no files, network, clocks, chance of its own, or optimizer.
NOT_IN_MODELS = {
    *("absl", "asyncio", "datetime", "glob", "grain", "http", "io", "multiprocessing", "optax", "orbax", "os"),
    *("pathlib", "random", "shutil", "socket", "subprocess", "tempfile", "threading", "time", "urllib"),
}
# Written in pieces, so that this file does not name them.
REGISTRY = re.compile(
    "|".join(
        [
            r"\bpypi" + r"\.(?:org|python\.org|nvidia\.com)",
            r"\bpythonhosted" + r"\.org",
            r"\bnpmjs" + r"\.(?:org|com)",
            r"\bdeb\.debian" + r"\.org",
            r"\barchive\.ubuntu" + r"\.com",
            r"\bconda\.anaconda" + r"\.org",
            r"\bdownload\.pytorch" + r"\.org",
            r"--(?:extra-)?index" + r"-url[ =]+[a-z]+:",
        ]
    ),
    re.IGNORECASE,
)
MACHINE_PATH = re.compile(r"(?<![\w.~/{}$)*-])/(?:home|Users|root|work|mnt|scratch|opt|tmp)/\w")


def tracked_files() -> list[Path]:
    """Every file under version control; in a copy without it, every file outside dot folders and caches."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = [name for name in listed.stdout.split("\0") if name]
    if "launch.sh" in names:
        paths = [ROOT / name for name in names]
    else:
        written = {"studies", "runs", "build", "dist", "venv", "__pycache__"}
        paths = [
            path
            for path in ROOT.rglob("*")
            if not any(part in written or part.startswith(".venv") for part in path.relative_to(ROOT).parts)
            and not any(part.startswith(".") and part != ".ci" for part in path.relative_to(ROOT).parts[:-1])
        ]
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def texts() -> Iterator[tuple[str, str]]:
    """Each tracked text file's name within the repository, and its text."""
    for path in tracked_files():
        data = path.read_bytes()
        if b"\0" not in data:
            yield path.relative_to(ROOT).as_posix(), data.decode("utf-8")


def sources(room: str) -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / room).rglob("*.py"))


def imported(source: str, package: str) -> set[str]:
    """Top-level names that `source`, a module of the dotted `package`, imports anywhere, in functions too."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            names.add(".".join([*above, *([node.module] if node.module else [])]))
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            names |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import train.loop as loop, jax", {"train", "jax"}),
        ("def f():\n    from experiments.evaluation import score", {"experiments"}),
        ("from ..errors import require", {"models"}),
        ("from . import rule", {"models"}),
        ("import importlib\nimportlib.import_module('train.step')", {"importlib", "train"}),
        ("'import train'", set()),
    ],
)
def test_imports_are_seen_wherever_they_stand(source: str, names: set[str]):
    assert imported(source, "models.attention") == names


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_one_way(room: str):
    files = sources(room)
    assert files, f"{room}/ holds no Python file"
    backwards = {}
    for name in files:
        package = name.rsplit("/", 1)[0].replace("/", ".")
        wrong = imported((ROOT / name).read_text(encoding="utf-8"), package) & (HOUSE - ROOMS[room])
        if wrong:
            backwards[name] = wrong
    assert backwards == {}, f"{room} may import only {', '.join(sorted(ROOMS[room]))}"


def test_models_touch_arrays_alone():
    files = {name: (ROOT / name).read_text(encoding="utf-8") for name in sources("models")}
    wrong = {name: found for name, text in files.items() if (found := imported(text, "models") & NOT_IN_MODELS)}
    assert wrong == {}


def test_no_file_holds_two_ideas():
    lengths = {name: len(text.splitlines()) for name, text in texts() if name.endswith((".py", ".sh"))}
    assert "launch.sh" in lengths
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def places(pattern: re.Pattern[str]) -> list[str]:
    """Each `file:line` of a tracked text that the pattern matches."""
    return [
        f"{name}:{number}: {match[0]}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if (match := pattern.search(line))
    ]


def test_no_text_names_a_registry():
    assert REGISTRY.search("from https://pypi" + ".org/simple")
    assert places(REGISTRY) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see /ho" + "me/ada/runs", True),
        ('"/tm' + 'p/cache"', True),
        ("$HOME/work/runs", False),
        ("{folder}/tmp/x", False),
        ("https://host/home/page", False),
        ("#!/usr/bin/env bash", False),
    ],
)
def test_a_machine_path_is_told_from_others(text: str, found: bool):
    assert bool(MACHINE_PATH.search(text)) == found


def test_no_text_names_a_path_of_one_machine():
    assert places(MACHINE_PATH) == []

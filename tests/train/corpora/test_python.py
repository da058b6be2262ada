"""Python source of the interpreter and of installed packages."""

import sys

import pytest

from models.errors import InvalidInput
from train.corpora import Python


def test_the_standard_library_without_tests():
    documents = list(Python().every_document())
    names = [document.name for document in documents]
    assert {"python/json/decoder.py", "python/argparse.py"} <= set(names)
    assert names == sorted(set(names))
    assert not [name for name in names if {"test", "tests", "site-packages"} & set(name.split("/"))]
    assert sum(len(document.text) for document in documents) > 5_000_000


def test_packages_join_by_import_name(monkeypatch, tmp_path):
    (tmp_path / "longreach_sample" / "tests").mkdir(parents=True)
    for name in ("__init__", "code", "tests/test_code"):
        (tmp_path / "longreach_sample" / f"{name}.py").write_text(f"# {name}")
    (tmp_path / "longreach_single.py").write_text("x = 1")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    plain = set(Python().every_document())
    joined = set(Python(packages=("longreach_sample", "longreach_single")).every_document())
    assert {tuple(document) for document in joined - plain} == {
        ("longreach_sample/__init__.py", "# __init__"),
        ("longreach_sample/code.py", "# code"),
        ("longreach_single.py", "x = 1"),
    }
    assert plain <= joined


@pytest.mark.parametrize("package", ["longreach_nowhere", "sys"])
def test_packages_without_source_are_refused(package):
    with pytest.raises(InvalidInput, match=f"data.corpus.packages = '{package}'"):
        list(Python(packages=(package,)).every_document())


def test_only_top_level_names():
    with pytest.raises(InvalidInput, match=r"packages = 'a\.b'"):
        Python(packages=("a.b",))

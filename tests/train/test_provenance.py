import json
import os
import shutil
import subprocess

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train import provenance as module
from train.provenance import hash_of, provenance, source_commit

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def test_names_versions_and_devices_but_no_host_or_path():
    facts = provenance()
    assert facts["versions"]["jax"] == jax.__version__
    assert facts["device_count"] == jax.device_count() and facts["platform"] == jax.devices()[0].platform
    assert facts["date"].endswith("+00:00")
    assert set(facts) == {
        "commit",
        "versions",
        "platform",
        "device_kind",
        "device_count",
        "process_count",
        "date",
    }
    assert os.getcwd() not in json.dumps(facts)


@pytest.mark.skipif(shutil.which("git") is None, reason="makes a repository with git, which is not installed")
def test_commit_says_whether_the_rooms_changed(tmp_path):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        return subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)

    (tmp_path / "models").mkdir()
    source = tmp_path / "models" / "a.py"
    source.write_text("1\n")
    assert source_commit(tmp_path) is None  # no checkout yet
    git("init", "-q")
    assert source_commit(tmp_path) is None  # nothing committed yet
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD").stdout.strip()
    assert source_commit(tmp_path) == commit
    (tmp_path / "notes.txt").write_text("no source\n")
    assert source_commit(tmp_path) == commit
    source.write_text("2\n")
    assert source_commit(tmp_path) == commit + "+changes"
    source.write_text("1\n")
    (tmp_path / "models" / "b.py").write_text("3\n")
    assert source_commit(tmp_path) == commit + "+changes"
    assert source_commit(tmp_path / "models") is None  # inside a checkout that is not its own


def test_commit_is_none_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance()["commit"] is None


def test_a_missing_package_has_no_version(monkeypatch):
    monkeypatch.setattr(module, "PACKAGES", ("jax", "a-package-that-nobody-made"))
    assert provenance()["versions"]["a-package-that-nobody-made"] is None


def test_hash_is_the_start_of_the_sha256_of_canonical_text():
    # printf '{"a":[1,2.5],"b":null}' | sha256sum
    assert hash_of({"b": None, "a": (1, 2.5)}) == "f66b2c50ccae"
    assert hash_of({"a": 4}) != hash_of({"a": 4.0})
    with pytest.raises(TypeError):
        hash_of({"a": object()})


@given(json_values)
def test_hash_survives_a_round_trip_through_a_file(value):
    assert hash_of(json.loads(json.dumps(value))) == hash_of(value)

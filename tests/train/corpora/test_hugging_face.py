"""Hugging Face datasets: a library that may be missing, and rows that become documents."""

import json
import sys

import pytest

from models.errors import InvalidInput
from train.corpora import HuggingFace, hugging_face


@pytest.fixture(autouse=True)
def forget():
    hugging_face._load.cache_clear()


class Rows(list):
    """What the library returns, as far as it is used."""

    column_names = ("body", "label")
    _fingerprint = "rows"

    def select_columns(self, names):
        return [{name: row[name] for name in names} for row in self]


class Library:
    """A stand-in for `datasets` that knows one dataset."""

    def __init__(self):
        self.calls = []

    def load_dataset(self, dataset, subset, *, split, revision):
        self.calls.append((dataset, subset, split, revision))
        if split not in ("train", "test"):
            raise ValueError(f'Unknown split "{split}".\nShould be one of [train, test].')
        return Rows({"body": text, "label": 0} for text in (f"{split} one", "", None, f"{split} two"))


@pytest.fixture
def library(monkeypatch):
    library = Library()
    monkeypatch.setitem(sys.modules, "datasets", library)
    return library


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InvalidInput, match=r"longreach\[datasets\]"):
        list(HuggingFace("some/set").documents("train"))


def test_rows_are_documents_and_loading_is_said_once(library, capsys):
    corpus = HuggingFace("some/set", subset="small", text_field="body", held_out_split="test", revision="abc")
    for _ in range(2):
        assert [tuple(d) for d in corpus.documents("train")] == [("train:0", "train one"), ("train:3", "train two")]
    assert [tuple(d) for d in corpus.documents("held_out")] == [("test:0", "test one"), ("test:3", "test two")]
    assert library.calls == [("some/set", "small", "train", "abc"), ("some/set", "small", "test", "abc")]
    assert capsys.readouterr().err.count("loading some/set (train) from Hugging Face") == 1


def test_mistakes_are_one_line(library):
    with pytest.raises(InvalidInput, match=r"text_field = 'text'.*body, label"):
        list(HuggingFace("some/set").documents("train"))
    with pytest.raises(InvalidInput, match=r"could not be loaded: Unknown split \"validation\"\. Should"):
        list(HuggingFace("some/set", text_field="body").documents("held_out"))
    with pytest.raises(InvalidInput, match="does not hold strings"):
        list(HuggingFace("some/set", text_field="label").documents("train"))
    with pytest.raises(InvalidInput, match="held_out_split"):
        HuggingFace("some/set", held_out_split="train")
    with pytest.raises(InvalidInput, match=r"another split than train_split = 'train', or another slice of it"):
        HuggingFace("some/set", held_out_split="train[90%:]")
    HuggingFace("some/set", train_split="train[:90%]", held_out_split="train[90%:]")


def test_the_fingerprint_follows_the_rows_and_the_fields(library, monkeypatch):
    corpus = HuggingFace("some/set", text_field="body", held_out_split="test")
    before = corpus.fingerprint()
    assert corpus.fingerprint() == before
    assert HuggingFace("some/set", text_field="label", held_out_split="test").fingerprint() != before
    monkeypatch.setattr(Rows, "_fingerprint", "other rows")
    assert corpus.fingerprint() != before


def test_the_real_library_reads_a_local_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    pytest.importorskip("datasets")
    folder = tmp_path / "set"
    folder.mkdir()
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("\n".join(json.dumps({"text": f"{split} {i}"}) for i in range(3)))
    corpus = HuggingFace(str(folder))
    assert [d.text for d in corpus.documents("held_out")] == ["validation 0", "validation 1", "validation 2"]
    assert corpus.fingerprint() == corpus.fingerprint()

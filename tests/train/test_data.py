"""Tokenizer and stores are built once, found again, and built anew when what they depend on changes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from models.errors import InvalidInput
from train.configuration import from_config_dict, to_config_dict
from train.corpora import Files, Shakespeare
from train.data import DataConfig, prepare
from train.tokenizers.byte import Byte
from train.tokenizers.byte_bpe import ByteBPE
from train.tokenizers.file import File

ROOT = Path(__file__).parents[2]
SENTENCE = "the quick brown fox jumps over the lazy dog and the café; "


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LONGREACH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    for i in range(5):
        (folder / f"{i}.txt").write_text(SENTENCE * (i + 2), "utf-8")
    return DataConfig(corpus=Files(str(folder)))


def entries(cache: Path) -> set[str]:
    return {str(path.relative_to(cache)) for path in cache.glob("*/*") if not path.name.startswith(".")}


def test_the_configuration_has_defaults_and_choices():
    assert DataConfig() == DataConfig(corpus=Shakespeare(), packing="windows")
    config = DataConfig(corpus=Files("here"), packing="documents")
    assert from_config_dict(DataConfig, to_config_dict(config)) == config
    with pytest.raises(InvalidInput, match=r"packing = 'rows'.*windows, documents"):
        DataConfig(packing="rows")


def test_both_splits_are_encoded_whole(cache, data):
    prepared = prepare(data, ByteBPE(vocabulary_size=280))
    for split, store in (("train", prepared.train), ("held_out", prepared.held_out)):
        documents = list(data.corpus.documents(split))
        assert store.document_names == tuple(document.name for document in documents)
        assert store.byte_count == sum(len(document.text.encode()) for document in documents)
        for i, document in enumerate(documents):
            assert prepared.tokenizer.decode(store.document(i)[0][1:]) == document.text
    assert prepared.tokenizer.vocabulary_size == prepared.tokenizer_report.vocabulary_size == 280
    assert prepared.train.tokenizer_hash == prepared.held_out.tokenizer_hash == prepared.tokenizer.hash
    report, store = prepared.tokenizer_report, prepared.held_out
    text_tokens = store.token_count - len(store.document_names)
    assert report.bytes_per_token == pytest.approx(store.byte_count / text_tokens)


def test_a_second_run_builds_nothing(cache, data, capsys, monkeypatch):
    first = prepare(data, ByteBPE(vocabulary_size=280))
    assert capsys.readouterr().err.count("once") == 3
    before = entries(cache)
    monkeypatch.setattr(ByteBPE, "train", None)
    second = prepare(data, ByteBPE(vocabulary_size=280))
    assert capsys.readouterr().err == ""
    assert entries(cache) == before and len(before) == 4
    assert second.tokenizer.hash == first.tokenizer.hash
    assert (second.train.hash, second.held_out.hash) == (first.train.hash, first.held_out.hash)
    assert second.tokenizer_report == first.tokenizer_report


def test_what_changes_is_built_anew(cache, data):
    first = prepare(data, ByteBPE(vocabulary_size=280))
    other = prepare(data, ByteBPE(vocabulary_size=270))
    assert other.tokenizer.vocabulary_size == 270 and other.train.hash != first.train.hash
    (Path(data.corpus.path) / "0.txt").write_text("entirely other words", "utf-8")
    changed = prepare(data, ByteBPE(vocabulary_size=270))
    assert {changed.train.hash, changed.held_out.hash} != {other.train.hash, other.held_out.hash}
    assert len(entries(cache)) == 12


def test_a_tokenizer_file_is_read_anew(cache, data, tmp_path):
    file = tmp_path / "tokenizer.json"

    def trained(vocabulary_size: int) -> str:
        tokenizer = ByteBPE(vocabulary_size=vocabulary_size).train([SENTENCE])
        tokenizer.save(tmp_path / str(vocabulary_size))
        (content,) = (tmp_path / str(vocabulary_size)).glob("tokenizer*")
        file.write_bytes(content.read_bytes())
        return prepare(data, File(str(file))).tokenizer.hash

    assert trained(270) != trained(280)


def test_an_empty_corpus_leaves_no_entry(cache, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="holds no text"):
        prepare(DataConfig(corpus=Files(str(tmp_path / "empty"))), Byte())
    for text, split in (("ab", "training"), ("abcdefgh", "held-out")):
        (tmp_path / "empty" / "a.txt").write_text(text)
        with pytest.raises(InvalidInput) as caught:
            prepare(DataConfig(corpus=Files(str(tmp_path / "empty"))), Byte())
        assert str(caught.value) == (
            f"the {split} split of data.corpus holds 1 documents of 1 tokens in all; it must hold at least 2; "
            "data.corpus.held_out changes what is held out"
        )
        # Of the second text, the training split is one that can be used.
        assert len([entry for entry in entries(cache) if entry.startswith("stores")]) == (split == "held-out")


def test_concurrent_runs_share_one_build(cache, data):
    script = f"""
import json, sys
from train.corpora import Files
from train.data import DataConfig, prepare
from train.tokenizers.byte_bpe import ByteBPE
prepared = prepare(DataConfig(corpus=Files({data.corpus.path!r})), ByteBPE(vocabulary_size=280))
print(json.dumps([prepared.tokenizer.hash, prepared.train.hash, prepared.held_out.hash]))
"""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert json.loads(outputs[0][0]) == json.loads(outputs[1][0])
    assert sum(err.count("training the byte_bpe tokenizer") for _, err in outputs) == 1
    assert sum(err.count("encoding the") for _, err in outputs) == 2
    assert len(entries(cache)) == 4

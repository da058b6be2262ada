"""Splits chosen by name: a partition, stable, and never empty where it can be helped."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidInput
from train.configuration import from_config_dict, to_config_dict
from train.corpora import SPLITS, Books, Corpus, Document, Files, HuggingFace, Python, Shakespeare
from train.corpora.corpus import SplitByName, document_of, held_out_names


@dataclass(frozen=True)
class Listed(SplitByName):
    """Documents given as they are."""

    listed: tuple[Document, ...]
    name = "listed"

    def every_document(self) -> Iterator[Document]:
        return iter(self.listed)


def corpus(*texts: str, held_out: float = 0.1) -> Listed:
    return Listed(tuple(Document(f"document {i}", text) for i, text in enumerate(texts)), held_out=held_out)


def test_every_alternative_is_registered_and_survives_configuration():
    assert set(Corpus.registry) == {"books", "files", "hugging_face", "python", "shakespeare"}
    for example in (Books(), Files("a"), HuggingFace("d"), Python(packages=("numpy",)), Shakespeare()):
        assert from_config_dict(Corpus, to_config_dict(example)) == example


def test_what_changes_the_splits_is_a_field():
    named = {name: cls.split_field for name, cls in Corpus.registry.items() if cls.split_field}
    assert named == {"files": "held_out", "python": "held_out", "hugging_face": "held_out_split"}
    for name, field in named.items():
        assert field in {f.name for f in dataclasses.fields(Corpus.registry[name])}
    assert Files("a").split_advice() == "; data.corpus.held_out changes what is held out"
    assert Books().split_advice() == ""


@given(names=st.lists(st.text(max_size=8), min_size=2, max_size=40, unique=True), share=st.floats(0.001, 0.999))
def test_held_out_names_are_some_but_not_all_and_depend_on_the_names_alone(names, share):
    chosen = held_out_names(names, share)
    assert 1 <= len(chosen) <= len(names) - 1
    assert chosen <= set(names)
    assert held_out_names(reversed(names), share) == chosen


def test_held_out_share_is_about_right_and_survives_additions():
    names = [f"file {i}" for i in range(2000)]
    chosen = held_out_names(names, 0.1)
    assert 150 < len(chosen) < 250
    assert held_out_names(names[:1000], 0.1) == chosen & set(names[:1000])


@given(st.integers(2, 30), st.floats(0.01, 0.99))
def test_the_splits_are_a_partition_in_order(count, share):
    documents = corpus(*[f"text {i}" for i in range(count)], held_out=share)
    train, held_out = (list(documents.documents(split)) for split in SPLITS)
    assert train and held_out
    assert sorted([*train, *held_out], key=documents.listed.index) == list(documents.listed)
    assert [d for d in documents.listed if d in train] == train


@given(st.text(min_size=2, max_size=50), st.floats(0.01, 0.99))
def test_a_single_document_gives_its_tail(text, share):
    documents = corpus(text, held_out=share)
    (train,), (held_out,) = (list(documents.documents(split)) for split in SPLITS)
    assert train.text + held_out.text == text
    assert train.text and held_out.text


def test_the_tail_has_the_share():
    (held_out,) = corpus("x" * 1000, held_out=0.25).documents("held_out")
    assert len(held_out.text) == 250


def test_nothing_to_read_is_refused():
    with pytest.raises(InvalidInput, match="holds no text"):
        list(corpus().documents("train"))
    with pytest.raises(InvalidInput, match="one character"):
        list(corpus("x").documents("train"))
    with pytest.raises(InvalidInput, match=r"split = 'test'.*train, held_out"):
        list(corpus("ab").documents("test"))
    for share in (0.0, 1.0, -0.5):
        with pytest.raises(InvalidInput, match="held_out"):
            corpus("ab", held_out=share)


def test_the_fingerprint_changes_with_names_texts_and_share():
    base = corpus("one", "two")
    others = [
        corpus("one", "two", held_out=0.2),
        corpus("one", "twO"),
        corpus("onet", "wo"),
        corpus("one", "two", "three"),
        dataclasses.replace(base, listed=(Document("other", "one"), base.listed[1])),
    ]
    assert base.fingerprint() == corpus("one", "two").fingerprint()
    assert len({base.fingerprint(), *(other.fingerprint() for other in others)}) == 1 + len(others)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
def test_utf8_is_preferred_and_line_ends_are_kept(encoding):
    assert document_of("it", "naïve\r\n".encode(encoding)) == ("it", "naïve\r\n")

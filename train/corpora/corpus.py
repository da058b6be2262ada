"""What a corpus is: named documents in two splits, and a fingerprint that changes when they do."""

import codecs
import hashlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from models.errors import InvalidInput, require, require_choice
from models.registry import Registry

Split = Literal["train", "held_out"]
SPLITS: tuple[Split, ...] = ("train", "held_out")


class Document(NamedTuple):
    """A text and the name it goes by within its corpus."""

    name: str
    text: str


class Latin1Document(Document):
    """One whose file is not UTF-8, so that its text is of other bytes than the file: those of the UTF-8 of Latin-1."""


@dataclass(frozen=True)
class Corpus:
    """Where text comes from. An alternative's fields are its configuration."""

    registry: ClassVar[Registry] = Registry("data.corpus.name")
    name: ClassVar[str]
    # The field that says what is held out, where the corpus does not fix it.
    split_field: ClassVar[str | None] = None

    def documents(self, split: Split) -> Iterator[Document]:
        """The documents of a split, always in the same order; none is empty, and none is in both splits.

        Raises InvalidInput where the text is missing, cannot be obtained or is empty.
        """
        raise NotImplementedError

    def split_advice(self) -> str:
        """What to add to the refusal of a split that is too small; nothing where the splits are fixed."""
        return f"; data.corpus.{self.split_field} changes what is held out" if self.split_field else ""

    def fingerprint(self) -> str:
        """64 hexadecimal digits that change with any name, text or split. Reads the corpus once."""
        digest = hashlib.sha256()
        for split in SPLITS:
            digest.update(f"{split}\0".encode())
            update(digest, self.documents(split))
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class SplitByName(Corpus):
    """A corpus whose held-out documents are chosen by a hash of their names, so that the choice outlives additions.

    held_out: share of the documents that is held out, between 0 and 1. Each split gets at least one document where
      there are two or more; a single document gives its last `held_out` of characters instead.
    """

    split_field: ClassVar[str | None] = "held_out"

    held_out: float = 0.1

    def __post_init__(self):
        require(0 < self.held_out < 1, "held_out", self.held_out, "a share above 0 and below 1")

    def every_document(self) -> Iterator[Document]:
        """All documents of both splits under different names, always in the same order; empty ones are left out."""
        raise NotImplementedError

    def documents(self, split: Split) -> Iterator[Document]:
        require_choice("split", split, SPLITS)
        names = [document.name for document in self.every_document()]
        if not names:
            raise InvalidInput(f"data.corpus ({self.name}) holds no text; it must hold at least one document")
        if len(names) == 1:
            document = next(self.every_document())
            length = len(document.text)
            if length < 2:
                raise InvalidInput(f"data.corpus ({self.name}) holds one character; it must hold at least 2")
            cut = min(max(round(length * (1 - self.held_out)), 1), length - 1)
            yield document._replace(text=document.text[:cut] if split == "train" else document.text[cut:])
            return
        held_out = held_out_names(names, self.held_out)
        for document in self.every_document():
            if (document.name in held_out) == (split == "held_out"):
                yield document

    def fingerprint(self) -> str:
        """The same; and says on standard error how many files it took for Latin-1."""
        digest = hashlib.sha256(f"{self.held_out!r}\0".encode())
        update(digest, _saying_what_is_latin_1(self.every_document()))
        return digest.hexdigest()


def _saying_what_is_latin_1(documents: Iterable[Document]) -> Iterator[Document]:
    count, first = 0, ""
    for document in documents:
        if isinstance(document, Latin1Document):
            count, first = count + 1, first or document.name
        yield document
    if count:
        which = f"the file {first} is not UTF-8 and was"
        if count > 1:
            which = f"{count} files, of which {first} is the first, are not UTF-8 and were"
        print(f"data.corpus: {which} read as Latin-1", file=sys.stderr, flush=True)


def held_out_names(names: Iterable[str], share: float) -> set[str]:
    """The names whose hash falls into the lowest `share` of all hashes; at least one, and never all, of two or more."""
    by_hash = sorted((hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest(), name) for name in names)
    below = sum(int.from_bytes(digest[:8], "big") < share * 2**64 for digest, _ in by_hash)
    return {name for _, name in by_hash[: min(max(below, 1), len(by_hash) - 1)]}


def update(digest, documents: Iterable[Document]) -> None:
    """Adds documents to a hash so that no two different lists of documents add the same bytes."""
    for document in documents:
        for part in document:
            data = part.encode("utf-8", "surrogateescape")
            digest.update(f"{len(data)}\0".encode())
            digest.update(data)


def document_of(name: str, data: bytes) -> Document:
    """A file's text: UTF-16 where its bytes begin with that mark, UTF-8 where they are valid UTF-8, else Latin-1, which
    any bytes are. Line ends are kept."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return Document(name, data.decode("utf-16", "replace"))
    try:
        return Document(name, data.decode("utf-8"))
    except UnicodeDecodeError:
        return Latin1Document(name, data.decode("latin-1"))

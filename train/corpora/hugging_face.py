"""Datasets of the Hugging Face hub, or in local folders that its `datasets` library reads."""

import functools
import hashlib
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from models.errors import InvalidInput, invalid, require, require_choice
from train.corpora.corpus import SPLITS, Corpus, Document, Split


@Corpus.registry.register("hugging_face")
@dataclass(frozen=True)
class HuggingFace(Corpus):
    """One row of a dataset is a document; rows without text are left out. Needs the extra `longreach[datasets]`.

    dataset: its name on the hub, or a local folder.
    subset: the configuration, where the dataset has several.
    text_field: the column that holds the text.
    train_split, held_out_split: their names in the dataset; slices such as "train[:90%]" are allowed.
    revision: branch, tag or commit on the hub; a commit pins the content.
    """

    split_field: ClassVar[str | None] = "held_out_split"

    dataset: str
    subset: str | None = None
    text_field: str = "text"
    train_split: str = "train"
    held_out_split: str = "validation"
    revision: str = "main"

    def __post_init__(self):
        require(bool(self.dataset), "dataset", self.dataset, "the name of a dataset")
        train, held_out = (split.partition("[") for split in (self.train_split, self.held_out_split))
        # Of two slices the library alone knows whether they overlap.
        apart = train[0] != held_out[0] or (train[1] and held_out[1] and train != held_out)
        allowed = f"another split than train_split = {self.train_split!r}, or another slice of it"
        require(bool(apart), "held_out_split", self.held_out_split, allowed)

    def documents(self, split: Split) -> Iterator[Document]:
        require_choice("split", split, SPLITS)
        rows = self._rows(split)
        if self.text_field not in rows.column_names:
            columns = ", ".join(rows.column_names)
            raise invalid("data.corpus.text_field", self.text_field, f"one of the dataset's columns: {columns}")
        name = self.train_split if split == "train" else self.held_out_split
        for index, row in enumerate(rows.select_columns([self.text_field])):
            text = row[self.text_field]
            if not isinstance(text, str | None):
                raise InvalidInput(f"data.corpus.text_field: column {self.text_field!r} does not hold strings")
            if text:
                yield Document(f"{name}:{index}", text)

    def fingerprint(self) -> str:
        """From the fields and the library's own fingerprint of the rows, so that large datasets need not be read."""
        parts = [repr(self), *(self._rows(split)._fingerprint for split in SPLITS)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def _rows(self, split: Split) -> Any:
        name = self.train_split if split == "train" else self.held_out_split
        return _load(self.dataset, self.subset, name, self.revision)


@functools.cache
def _load(dataset: str, subset: str | None, split: str, revision: str) -> Any:
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        raise InvalidInput(
            'data.corpus.name = "hugging_face" needs a package that is not installed: pip install longreach[datasets]'
        ) from None
    print(
        f"loading {dataset} ({split}) from Hugging Face, downloaded once and kept in its own cache",
        file=sys.stderr,
        flush=True,
    )
    try:
        return datasets.load_dataset(dataset, subset, split=split, revision=revision)
    except Exception as error:
        # The library and its HTTP clients raise many kinds: an unknown name, a missing split, no network.
        reason = " ".join(str(error).split())
        raise InvalidInput(f"data.corpus: the dataset {dataset!r} ({split}) could not be loaded: {reason}") from error

"""From a corpus and a tokenizer recipe to a tokenizer and two token stores, built once and shared by all runs."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from models.errors import InvalidInput, require_choice
from train.batches import PACKINGS
from train.cache import build_once, cache_folder
from train.corpora import Corpus, Shakespeare, Split
from train.store import TokenStore, TooLittleText
from train.tokenizers import Tokenizer, TokenizerRecipe, TokenizerReport, load_tokenizer, tokenizer_report
from train.tokenizers.file import File

# Part of every cache key; a change of what is written there takes the next number.
FORMAT = 1
LIBRARIES = ("sentencepiece", "tiktoken", "tokenizers")


@dataclass(frozen=True)
class DataConfig:
    """What a run reads.

    corpus: where text comes from.
    packing: how it becomes rows, "windows" (contiguous, across documents) or "documents" (masked from each other).
    """

    corpus: Corpus = field(default_factory=Shakespeare)
    packing: str = "windows"

    def __post_init__(self):
        require_choice("packing", self.packing, PACKINGS)


class Prepared(NamedTuple):
    """A tokenizer, both splits as token stores, and the report on the tokenizer over the held-out split."""

    tokenizer: Tokenizer
    train: TokenStore
    held_out: TokenStore
    tokenizer_report: TokenizerReport

    @property
    def hashes(self) -> dict[str, str]:
        """What a run's provenance says of the text and the tokenizer it was trained with."""
        return {
            "tokenizer_hash": self.tokenizer.hash,
            "data_hash": self.train.hash,
            "held_out_hash": self.held_out.hash,
        }


def prepare(data: DataConfig, recipe: TokenizerRecipe) -> Prepared:
    """Trains (or loads) the tokenizer on the training split, then encodes both splits.

    What the cache holds is used; what it lacks is built there once, also under concurrent runs. The tokenizer is known
    by its recipe, the corpus and the versions of the tokenizer libraries; stores and report by the corpus and the
    tokenizer's hash.

    Raises InvalidInput where the corpus or the recipe refuses.
    """
    corpus = data.corpus
    fingerprint = corpus.fingerprint()
    tokenizer = _tokenizer(corpus, fingerprint, recipe)
    return Prepared(
        tokenizer,
        train=_store(corpus, fingerprint, "train", tokenizer),
        held_out=_store(corpus, fingerprint, "held_out", tokenizer),
        tokenizer_report=_report(corpus, fingerprint, tokenizer),
    )


def _tokenizer(corpus: Corpus, fingerprint: str, recipe: TokenizerRecipe) -> Tokenizer:
    def build(folder: Path) -> None:
        _say(f"training the {recipe.name} tokenizer on the {corpus.name} corpus, once")
        recipe.train(_Texts(corpus, "train")).save(folder)

    if isinstance(recipe, File):
        # Nothing to train, and what its path holds may change.
        return recipe.train(())
    versions = {library: metadata.version(library) for library in LIBRARIES}
    key = _key(recipe=recipe.name, fields=dataclasses.asdict(recipe), corpus=fingerprint, versions=versions)
    return load_tokenizer(build_once(cache_folder() / "tokenizers" / key, build))


def _store(corpus: Corpus, fingerprint: str, split: Split, tokenizer: Tokenizer) -> TokenStore:
    def build(folder: Path) -> None:
        _say(f"encoding the {split} split of the {corpus.name} corpus, once")
        try:
            TokenStore.build(folder, corpus.documents(split), tokenizer)
        except TooLittleText as error:
            which = "training" if split == "train" else "held-out"
            raise InvalidInput(f"the {which} split of {error}{corpus.split_advice()}") from None

    key = _key(corpus=fingerprint, split=split, tokenizer=tokenizer.hash)
    return TokenStore.open(build_once(cache_folder() / "stores" / key, build))


def _report(corpus: Corpus, fingerprint: str, tokenizer: Tokenizer) -> TokenizerReport:
    def build(folder: Path) -> None:
        report = tokenizer_report(tokenizer, _Texts(corpus, "held_out"))
        (folder / "report.json").write_text(json.dumps(dataclasses.asdict(report)), "utf-8")

    key = _key(corpus=fingerprint, tokenizer=tokenizer.hash)
    folder = build_once(cache_folder() / "tokenizer_reports" / key, build)
    return TokenizerReport(**json.loads((folder / "report.json").read_text("utf-8")))


class _Texts:
    """The texts of a split, read anew each time they are iterated over."""

    def __init__(self, corpus: Corpus, split: Split):
        self.corpus = corpus
        self.split: Split = split

    def __iter__(self) -> Iterator[str]:
        return (document.text for document in self.corpus.documents(self.split))


def _key(**parts: Any) -> str:
    canonical = json.dumps({"format": FORMAT, **parts}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

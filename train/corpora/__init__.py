"""Where text comes from: one alternative per file, by the name used in a configuration."""

from train.corpora.books import Books
from train.corpora.corpus import SPLITS, Corpus, Document, Split
from train.corpora.files import Files
from train.corpora.hugging_face import HuggingFace
from train.corpora.python import Python
from train.corpora.shakespeare import Shakespeare

__all__ = ["SPLITS", "Books", "Corpus", "Document", "Files", "HuggingFace", "Python", "Shakespeare", "Split"]

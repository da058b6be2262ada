"""A tokenizer somebody else trained, from its file."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from models.errors import InvalidInput, invalid, require
from train.tokenizers.hugging_face import HuggingFaceTokenizer
from train.tokenizers.ranks import RanksTokenizer
from train.tokenizers.recipe import TokenizerRecipe
from train.tokenizers.sentence_piece import SentencePieceTokenizer
from train.tokenizers.tokenizer import Tokenizer

KINDS = "a tokenizers JSON file (*.json), a SentencePiece model (*.model) or a tiktoken rank file (*.tiktoken)"
RANK_LINE = re.compile(rb"\s*[A-Za-z0-9+/]+=*[ \t]+\d+\s*(\n|\r|$)")


@TokenizerRecipe.registry.register("file")
@dataclass(frozen=True)
class File(TokenizerRecipe):
    """path: a tokenizers JSON file, a SentencePiece model or a tiktoken rank file; told apart by their content."""

    path: str

    def __post_init__(self):
        require(self.path != "", "path", self.path, f"the path of {KINDS}")

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """The tokenizer in the file, whatever the texts. Raises InvalidInput where it is missing or of no such kind."""
        path = Path(self.path).expanduser()
        if not path.is_file():
            raise invalid("tokenizer.path", self.path, f"the path of {KINDS}; there is no such file")
        try:
            return _read(path.read_bytes())
        except InvalidInput as error:
            raise invalid("tokenizer.path", self.path, f"the path of {KINDS}; {error}") from None


def _read(content: bytes) -> Tokenizer:
    if content.lstrip().startswith(b"{"):
        return HuggingFaceTokenizer.from_json(content)
    if RANK_LINE.match(content):
        # Some rank files are named *.model.
        return RanksTokenizer.from_ranks(content)
    return SentencePieceTokenizer.from_model(content)

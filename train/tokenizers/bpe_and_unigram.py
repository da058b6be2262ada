"""BPE and Unigram over characters, with bytes for the characters outside the vocabulary; trained by SentencePiece."""

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import sentencepiece

from models.errors import require
from train.tokenizers.recipe import TokenizerRecipe, nothing_to_learn, too_large, too_small, training_texts
from train.tokenizers.sentence_piece import SentencePieceTokenizer

SMALLEST = 259
# Newlines end the library's sentences; it skips sentences with a ▅ of their own, and takes a ▁ for a space.
BETWEEN_SENTENCES = re.compile("[\n▁▅]")


@dataclass(frozen=True)
class SentencePieceRecipe(TokenizerRecipe):
    """Trained on lines, kept as they are: no normalization, no space put in front, every space and byte kept."""

    model_type: ClassVar[str]
    vocabulary_size: int = 2048

    def __post_init__(self):
        size = self.vocabulary_size
        require(size >= SMALLEST, "vocabulary_size", size, f"at least {SMALLEST}: 256 bytes, 2 special, 1 character")

    def train(self, texts: Iterable[str]) -> SentencePieceTokenizer:
        lines = [line for text in training_texts(texts, self.name) for line in BETWEEN_SENTENCES.split(text) if line]
        if not lines:
            raise nothing_to_learn(self.name)
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                model_type=self.model_type,
                vocab_size=self.vocabulary_size,
                byte_fallback=True,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                add_dummy_prefix=False,
                allow_whitespace_only_pieces=True,
                max_sentence_length=max(map(len, lines)) * 4 + 1,  # In bytes; longer sentences would be skipped.
                unk_id=0,
                eos_id=1,
                bos_id=-1,
                pad_id=-1,
                num_threads=1,  # Sums of floats depend on the number of threads.
                minloglevel=2,
            )
        except RuntimeError as error:
            if limit := re.search(r"too high \(\d+\)\. .* <= (\d+)", str(error)):
                raise too_large(self.vocabulary_size, int(limit[1])) from None
            if limit := re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error)):
                raise too_small(self.vocabulary_size, int(limit[1])) from None
            raise
        return SentencePieceTokenizer.from_model(model.getvalue())


@TokenizerRecipe.registry.register("bpe")
@dataclass(frozen=True)
class BPE(SentencePieceRecipe):
    """BPE over characters (Sennrich et al. 2016) with byte fallback, as in Llama 2; exact for every text."""

    model_type = "bpe"


@TokenizerRecipe.registry.register("unigram")
@dataclass(frozen=True)
class Unigram(SentencePieceRecipe):
    """The unigram language model (Kudo 2018) with byte fallback: the likeliest cut; exact for every text."""

    model_type = "unigram"

"""Byte-level BPE: merges of frequent neighbours, starting from the 256 bytes, within words as GPT-2 cuts them."""

from collections.abc import Iterable
from dataclasses import dataclass

from models.errors import require
from train.tokenizers.hugging_face import HuggingFaceTokenizer, tokenizers
from train.tokenizers.recipe import TokenizerRecipe, too_large, training_texts

SMALLEST = 257


@TokenizerRecipe.registry.register("byte_bpe")
@dataclass(frozen=True)
class ByteBPE(TokenizerRecipe):
    """Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019); exact for every text."""

    vocabulary_size: int = 2048

    def __post_init__(self):
        size = self.vocabulary_size
        require(size >= SMALLEST, "vocabulary_size", size, f"at least {SMALLEST}: 256 bytes and the boundary")

    def train(self, texts: Iterable[str]) -> HuggingFaceTokenizer:
        library = tokenizers.Tokenizer(tokenizers.models.BPE())
        library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=self.vocabulary_size - 1,  # The boundary is appended.
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        library.train_from_iterator(training_texts(texts, self.name), trainer)
        if library.get_vocab_size() + 1 < self.vocabulary_size:
            raise too_large(self.vocabulary_size, library.get_vocab_size() + 1)
        return HuggingFaceTokenizer.from_json(library.to_str().encode())

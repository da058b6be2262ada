"""WordPiece: words cut greedily into the longest pieces of the vocabulary, continuing pieces marked with ##."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from models.errors import require
from train.tokenizers.hugging_face import HuggingFaceTokenizer, tokenizers
from train.tokenizers.recipe import TokenizerRecipe, nothing_to_learn, too_large, too_small, training_texts

UNKNOWN = "[UNK]"
CONTINUING = "##"


@TokenizerRecipe.registry.register("wordpiece")
@dataclass(frozen=True)
class WordPiece(TokenizerRecipe):
    """WordPiece (Schuster & Nakajima 2012; Devlin et al. 2019), cased. White space is not kept.

    Words with a character never seen in that place, or of more than 100 characters, become [UNK].
    """

    vocabulary_size: int = 2048

    def __post_init__(self):
        require(self.vocabulary_size >= 3, "vocabulary_size", self.vocabulary_size, "at least 3")

    def train(self, texts: Iterable[str]) -> HuggingFaceTokenizer:
        kept = training_texts(texts, self.name)
        library = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token=UNKNOWN))
        library.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        library.decoder = tokenizers.decoders.WordPiece(prefix=CONTINUING, cleanup=False)
        alphabet = _alphabet(kept, library.pre_tokenizer)
        if not alphabet:
            raise nothing_to_learn(self.name)
        # Besides the alphabet there are the unknown token and the boundary, which is appended.
        if self.vocabulary_size < len(alphabet) + 2:
            raise too_small(self.vocabulary_size, len(alphabet) + 2)
        trainer = tokenizers.trainers.WordPieceTrainer(
            vocab_size=self.vocabulary_size - 1,
            # The trainer numbers the letters of its alphabet as its hash map has them, so in another order in every
            # process, but special tokens as they come: entered as special, every training gives the same ids.
            special_tokens=[UNKNOWN, *alphabet],
            continuing_subword_prefix=CONTINUING,
            show_progress=False,
        )
        library.train_from_iterator(kept, trainer)
        if library.get_vocab_size() + 1 < self.vocabulary_size:
            raise too_large(self.vocabulary_size, library.get_vocab_size() + 1)
        description = json.loads(library.to_str())
        description["added_tokens"] = []
        return HuggingFaceTokenizer.from_json(json.dumps(description, ensure_ascii=False).encode())


def _alphabet(texts: list[str], pre_tokenizer: tokenizers.pre_tokenizers.PreTokenizer) -> list[str]:
    """Every character of every word, and with ## in front those that continue a word, in a fixed order."""
    # Cut at the commonest white space first, so that each distinct chunk is looked at once.
    chunks = {chunk for text in texts for chunk in text.replace("\n", " ").split(" ")}
    words = {word for chunk in chunks for word, _ in pre_tokenizer.pre_tokenize_str(chunk)}
    letters = {letter for word in words for letter in word}
    continuing = {letter for word in words for letter in word[1:]}
    return [*sorted(letters), *(CONTINUING + letter for letter in sorted(continuing))]

"""Texts, small recipes and tokenizer files of every kind."""

import base64
import functools
import io
import pydoc_data.topics

import sentencepiece
import tokenizers

from train.tokenizers import TokenizerRecipe

TEXTS = [*list(pydoc_data.topics.topics.values())[:12], "Größe, naïve café – 東京 😀\r\n\tÀ la carte…\n"]
SIZES = {"word": 400, "byte_bpe": 600, "bpe": 600, "wordpiece": 600, "unigram": 600}
TRAINED = [name for name in TokenizerRecipe.registry if name != "file"]


def recipe(name: str, **fields) -> TokenizerRecipe:
    if name in SIZES:
        fields.setdefault("vocabulary_size", SIZES[name])
    return TokenizerRecipe.registry[name](**fields)


def _library_file(model, trainer, pre_tokenizer, decoder=None, normalizer=None) -> bytes:
    library = tokenizers.Tokenizer(model)
    library.pre_tokenizer = pre_tokenizer
    library.train_from_iterator(TEXTS, trainer)
    if decoder is not None:
        library.decoder = decoder
    if normalizer is not None:
        library.normalizer = normalizer
    library.enable_truncation(5)
    library.enable_padding(length=8)
    return library.to_str().encode()


def byte_level_file(normalizer=None, special=("<|endoftext|>",)) -> bytes:
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    return _library_file(
        tokenizers.models.BPE(),
        tokenizers.trainers.BpeTrainer(
            vocab_size=500, initial_alphabet=alphabet, special_tokens=list(special), show_progress=False
        ),
        tokenizers.pre_tokenizers.Sequence(
            [tokenizers.pre_tokenizers.Digits(), tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
        tokenizers.decoders.ByteLevel(),
        normalizer,
    )


def bert_file() -> bytes:
    return _library_file(
        tokenizers.models.WordPiece(unk_token="[UNK]"),
        tokenizers.trainers.WordPieceTrainer(vocab_size=500, special_tokens=["[UNK]", "[SEP]"], show_progress=False),
        tokenizers.pre_tokenizers.BertPreTokenizer(),
        tokenizers.decoders.WordPiece(),
        tokenizers.normalizers.BertNormalizer(lowercase=True),
    )


def no_unknown_file() -> bytes:
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=500, show_progress=False)
    return _library_file(tokenizers.models.BPE(), trainer, tokenizers.pre_tokenizers.Whitespace())


def metaspace_file() -> bytes:
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=500, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    return _library_file(
        tokenizers.models.Unigram(), trainer, tokenizers.pre_tokenizers.Metaspace(), tokenizers.decoders.Metaspace()
    )


def llama_file() -> bytes:
    """A vocabulary of characters with byte fallback, a space put in front by the normalizer."""
    pieces = [*"▁abcdefghijklmnopqrstuvwxyz", "▁t", "he", "▁the"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256)), *pieces]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he")]
    vocabulary = {token: id for id, token in enumerate(tokens)}
    model = tokenizers.models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    library = tokenizers.Tokenizer(model)
    normalizers, decoders = tokenizers.normalizers, tokenizers.decoders
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    library.add_special_tokens(["<unk>", "<s>", "</s>"])
    return library.to_str().encode()


def sentence_piece_file(**settings) -> bytes:
    model = io.BytesIO()
    lines = [line for text in TEXTS for line in text.splitlines() if line]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=500, minloglevel=2, **settings
    )
    return model.getvalue()


def ranks_file() -> bytes:
    words = [b"th", b"the", b" the", b"in", b" a", b"\xc3\xa9", b"  ", b"\r\n"]
    pieces = [bytes([value]) for value in range(256)] + words
    return b"".join(base64.b64encode(piece) + b" %d\n" % rank for rank, piece in enumerate(pieces))


FILES = {
    "byte_level.json": byte_level_file,
    "byte_level_nfc.json": lambda: byte_level_file(tokenizers.normalizers.NFC()),
    "bert.json": bert_file,
    "no_unknown.json": no_unknown_file,
    "metaspace.json": metaspace_file,
    "llama.json": llama_file,
    "default.model": lambda: sentence_piece_file(),
    "llama.model": lambda: sentence_piece_file(
        model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False
    ),
    "ranks.tiktoken": ranks_file,
}


@functools.cache
def file_content(name: str) -> bytes:
    return FILES[name]()

"""Tokenizers of the Hugging Face `tokenizers` library: what its JSON file describes, with exact byte lengths.

Byte-level BPE (Radford et al. 2019) writes each byte as one visible character, so the bytes of an id depend on the id
alone and whole texts are measured by table lookup. Everything else goes by the character offsets the library reports.
"""

import json
import os
from typing import Any

import numpy as np

from models.errors import InvalidInput
from train.tokenizers.tokenizer import EXACT, Tokenizer, byte_offsets, lengths_from_spans

# Set before the library starts threads: a process forked later (a data loader's) would otherwise print a warning.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import tokenizers

# Special tokens that can stand between documents, the most telling first.
BOUNDARIES = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[EOS]", "[SEP]", "<s>", "<bos>")
# Pre-tokenizers that only cut text, unless their behaviour is to remove what they match.
CUTTING = ("ByteLevel", "Split", "Digits", "Punctuation", "UnicodeScripts")


def _byte_alphabet() -> dict[str, int]:
    """The visible character that stands for each byte in byte-level vocabularies, to the byte."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [value for value in range(256) if value not in visible]
    return {chr(value): value for value in visible} | {chr(256 + i): value for i, value in enumerate(hidden)}


BYTES = _byte_alphabet()
# Tokens of the bytes of characters outside a vocabulary of characters.
BYTE_FALLBACK = {f"<0x{value:02X}>": bytes([value]) for value in range(256)}


@Tokenizer.kinds.register("hugging_face")
class HuggingFaceTokenizer(Tokenizer):
    """`content` is a tokenizers JSON file; see `from_json` for the ids.

    Text is only text: special tokens written out in it are encoded as ordinary characters, and templates, padding and
    truncation of the file are left aside.
    """

    file_name = "tokenizer.json"

    def __init__(self, content: bytes, boundary_id: int, unknown_id: int | None):
        """`unknown_id` is what text without any other token becomes; None where every text has tokens."""
        library = _open(content)
        self._library = library
        self._unknown_id = unknown_id
        description = json.loads(library.to_str())
        reasons = reasons_for_loss(description)
        byte_level = any(step["type"] == "ByteLevel" for step in _steps(description["pre_tokenizer"]))
        pieces = _pieces(description, library, byte_level, size=max(boundary_id, unknown_id or 0) + 1)
        pieces[boundary_id] = b""
        statement = "Not exact: " + "; ".join(reasons) + "." if reasons else EXACT
        details = {"boundary_id": boundary_id, "unknown_id": unknown_id}
        super().__init__(content, details, pieces, boundary_id, lossless=not reasons, statement=statement)
        # Tokens that share a character's span: any of a byte-level vocabulary, else those of single bytes.
        self._own = self._piece_lengths.astype(np.int64)
        if not byte_level:
            self._own[:] = 0
            self._own[[id for token in BYTE_FALLBACK if (id := library.token_to_id(token)) is not None]] = 1

    @classmethod
    def from_json(cls, content: bytes) -> "HuggingFaceTokenizer":
        """The tokenizer of a JSON file. The boundary is a special token such as <|endoftext|>, if there is one.

        Ids are appended for the boundary, and for the unknown token of a kind that needs one, where the file has none.
        Raises InvalidInput where the file is no tokenizers JSON.
        """
        library = _open(content)
        description = json.loads(library.to_str())
        size = max(library.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        unknown_id = None
        if reasons_for_loss(description):
            token = description["model"].get("unk_token")
            unknown_id = None if token is None else library.token_to_id(token)
            if description["model"]["type"] == "Unigram":
                unknown_id = description["model"].get("unk_id")
            if unknown_id is None:
                unknown_id, size = size, size + 1
        boundary_id = _boundary(description, library, unknown_id)
        return cls(content, size if boundary_id is None else boundary_id, unknown_id)

    def encode(self, text: str) -> np.ndarray:
        # The batch call is the one that leaves out the offsets.
        ids = self._library.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return self._with_unknown(ids, text)

    def _with_unknown(self, ids: list[int], text: str) -> np.ndarray:
        return np.array([self._unknown_id] if text and not ids else ids, np.int32)

    def encode_with_lengths(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        if self.lossless:
            return super().encode_with_lengths(text)
        encoding = self._library.encode(text, add_special_tokens=False)
        ids = self._with_unknown(encoding.ids, text)
        if self._join(ids) == text.encode():
            return ids, self._piece_lengths[ids]
        spans = np.array(encoding.offsets or [(0, len(text))], np.int64).reshape(-1, 2)
        starts, ends = byte_offsets(text)[spans].T
        return ids, lengths_from_spans(starts, ends, self._own[ids], len(text.encode()))

    def decode(self, ids: Any) -> str:
        if self.lossless:
            return super().decode(ids)
        kept = self._checked(ids)
        return self._library.decode(kept[kept != self.boundary_id].tolist(), skip_special_tokens=False)


def reasons_for_loss(description: dict[str, Any]) -> list[str]:
    """Why the tokenizer of a parsed JSON file may not give a text back exactly; empty for a complete byte-level BPE."""
    reasons = []
    model, steps = description["model"], _steps(description["pre_tokenizer"])
    if description["normalizer"] is not None:
        reasons.append(f"the normalizer {description['normalizer']['type']} may change text")
    if not any(step["type"] == "ByteLevel" for step in steps):
        # The steps cannot make up for what a vocabulary of characters lacks: this says enough about them.
        reasons.append(f"the pieces of {model['type']} are not bytes, so white space and unseen characters may be lost")
        return reasons
    for step in steps:
        if step.get("add_prefix_space"):
            reasons.append("a space may be put before the text")
        if step["type"] not in CUTTING or step.get("behavior") == "Removed":
            reasons.append(f"the pre-tokenizer {step['type']} may drop characters")
    if model["type"] != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        reasons.append(f"a {model['type']} model with marked pieces decodes by its own rules")
    elif not BYTES.keys() <= model["vocab"].keys():
        reasons.append("some bytes have no token")
    added = [token for token in description["added_tokens"] if not token["special"]]
    if any(token["lstrip"] or token["rstrip"] for token in added):
        reasons.append("white space around added tokens is dropped")
    return reasons


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    if pre_tokenizer["type"] == "Sequence":
        return [step for inner in pre_tokenizer["pretokenizers"] for step in _steps(inner)]
    return [pre_tokenizer]


def _open(content: bytes) -> tokenizers.Tokenizer:
    try:
        library = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # The library raises bare Exception.
        reason = str(error).splitlines()[0]
        raise InvalidInput(f"the content is not a tokenizers JSON file that can be read: {reason}") from None
    library.no_truncation()
    library.no_padding()
    library.post_processor = None
    library.encode_special_tokens = True
    if getattr(library.model, "dropout", None):
        library.model.dropout = None
    return library


def _pieces(description: dict[str, Any], library: tokenizers.Tokenizer, byte_level: bool, size: int) -> list[bytes]:
    """The UTF-8 bytes of every id, for at least `size` ids; where pieces are not bytes, as near as their marks tell."""
    vocabulary = library.get_vocab(with_added_tokens=True)
    size = max(size, max(vocabulary.values(), default=-1) + 1)
    added = {token["content"] for token in description["added_tokens"]}
    prefix = description["model"].get("continuing_subword_prefix") or ""
    pieces = [b""] * size
    for token, id in vocabulary.items():
        if token in added:
            pieces[id] = token.encode()
        elif byte_level and all(character in BYTES for character in token):
            pieces[id] = bytes(BYTES[character] for character in token)
        elif token in BYTE_FALLBACK:
            pieces[id] = BYTE_FALLBACK[token]
        else:
            pieces[id] = token.removeprefix(prefix).replace("▁", " ").encode()
    return pieces


def _boundary(description: dict[str, Any], library: tokenizers.Tokenizer, unknown_id: int | None) -> int | None:
    """The id of the first special token in BOUNDARIES that no text is encoded as, or None."""
    special = {token["content"]: token["id"] for token in description["added_tokens"] if token["special"]}
    for token in BOUNDARIES:
        if token in special and special[token] != unknown_id:
            written_out = library.encode_batch([token, f" {token}"], add_special_tokens=False)
            if all(special[token] not in encoding.ids for encoding in written_out):
                return special[token]
    return None

"""SentencePiece models (Kudo & Richardson 2018): segmentation of raw text, with exact byte lengths.

The library writes a space as ▁ (U+2581) and cannot tell it from a ▁ in the text. A model that keeps text as it is and
falls back to bytes becomes exact once the ▁ of the text go in as their three bytes.
"""

from typing import Any

import numpy as np
import sentencepiece

from models.errors import InvalidInput
from train.tokenizers.tokenizer import EXACT, Tokenizer, lengths_from_spans

SPACE = "▁"
BYTE_PIECES = [f"<0x{value:02X}>" for value in range(256)]


@Tokenizer.kinds.register("sentencepiece")
class SentencePieceTokenizer(Tokenizer):
    """`content` is a serialized SentencePiece model; `boundary_id` one of its control tokens, or the id after its last.

    Raises InvalidInput where the content is no SentencePiece model.
    """

    file_name = "tokenizer.model"

    def __init__(self, content: bytes, boundary_id: int):
        self._library = _open(content)
        reasons = reasons_for_loss(content, self._library)
        pieces = [_piece(self._library, id) for id in range(self._library.get_piece_size())]
        pieces += [b""] * (boundary_id + 1 - len(pieces))
        statement = "Not exact: " + "; ".join(reasons) + "." if reasons else EXACT
        details = {"boundary_id": boundary_id}
        super().__init__(content, details, pieces, boundary_id, lossless=not reasons, statement=statement)
        # Only bytes of one character share a span.
        self._own = np.zeros(len(pieces), np.int64)
        for id in range(self._library.get_piece_size()):
            self._own[id] = self._library.is_byte(id)
        self._space_ids = [self._library.piece_to_id(BYTE_PIECES[value]) for value in SPACE.encode()]

    @classmethod
    def from_model(cls, content: bytes) -> "SentencePieceTokenizer":
        """The tokenizer of a model file. The boundary is its end token, else its begin token, else an id appended."""
        library = _open(content)
        for id in (library.eos_id(), library.bos_id()):
            if id >= 0 and library.is_control(id):
                return cls(content, id)
        return cls(content, library.get_piece_size())

    def encode(self, text: str) -> np.ndarray:
        if not self.lossless:
            ids = self._library.encode(text, out_type=int)
            return np.array([self._library.unk_id()] if text and not ids else ids, np.int32)
        first, *others = text.split(SPACE)
        ids = self._library.encode(first, out_type=int)
        for part in others:
            ids += self._space_ids
            ids += self._library.encode(part, out_type=int)
        return np.array(ids, np.int32)

    def _align(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        total = len(text.encode())
        rows = [
            (piece.get(2, 0), piece.get(4, 0), piece.get(5, 0))  # id, begin, end in bytes of SentencePieceText.pieces
            for number, value in read_message(self._library.encode(text, out_type="serialized_proto"))
            if number == 2
            for piece in [dict(read_message(value))]
        ]
        if text and not rows:
            rows = [(self._library.unk_id(), 0, total)]
        ids, starts, ends = np.array(rows, np.int64).reshape(-1, 3).T
        return ids.astype(np.int32), lengths_from_spans(starts, ends, self._own[ids], total)

    def decode(self, ids: Any) -> str:
        if self.lossless:
            return super().decode(ids)
        kept = self._checked(ids)
        return self._library.decode(kept[kept != self.boundary_id].tolist())


def reasons_for_loss(content: bytes, library: sentencepiece.SentencePieceProcessor) -> list[str]:
    """Why the model `content` may not give a text back exactly; empty where all of its settings keep text as it is."""
    model = dict(read_message(content))
    normalizer = dict(read_message(model.get(3, b"")))
    reasons = []
    if normalizer.get(2) or dict(read_message(model.get(5, b""))).get(2):
        reasons.append(f"its normalization ({normalizer.get(1, b'').decode()}) changes characters")
    if normalizer.get(4, 1):
        reasons.append("spaces at the ends and runs of spaces are dropped")
    if not all(library.is_byte(library.piece_to_id(piece)) for piece in BYTE_PIECES):
        reasons.append("characters outside the vocabulary are lost")
    if normalizer.get(3, 1) or not normalizer.get(5, 1):
        reasons.append("a ▁ in the text decodes as a space")
    return reasons


def read_message(message: bytes):
    """Yields (field number, value) of a serialized protocol buffer; an integer for varints, else the bytes.

    The library offers no look at a model's normalizer, and token spans only through such messages.
    """
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while place < len(message):
        key = varint()
        number, kind = key >> 3, key & 7
        if kind == 0:
            yield number, varint()
            continue
        size = {1: 8, 5: 4}.get(kind) or varint()
        yield number, message[place : place + size]
        place += size


def _open(content: bytes) -> sentencepiece.SentencePieceProcessor:
    if not content:  # The library takes it for no model at all and fails later.
        raise InvalidInput("the content is empty")
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=content)
    except RuntimeError:
        raise InvalidInput("the content is not a SentencePiece model that can be read") from None


def _piece(library: sentencepiece.SentencePieceProcessor, id: int) -> bytes:
    if library.is_control(id):
        return b""
    piece = library.id_to_piece(id)
    return bytes.fromhex(piece[3:5]) if library.is_byte(id) else piece.replace(SPACE, " ").encode()

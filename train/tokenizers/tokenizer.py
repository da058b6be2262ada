"""What a tokenizer is: ids, the exact bytes behind every id, and a folder it can be saved in and restored from.

Bits per byte compares models across tokenizers, so every encoded text must account for each of its UTF-8 bytes once:
`encode_with_lengths` gives byte lengths that sum to the size of the text for every kind, also for kinds that drop
spaces or normalise.
"""

import functools
import hashlib
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from models.errors import InvalidInput, require
from models.registry import Registry
from train.files import write_json, write_whole

META = "meta.json"
EXACT = "Exact: decode(encode(text)) is text."


class Tokenizer(ABC):
    """Text to ids and back.

    vocabulary_size: how many ids there are, the boundary included; every id is below it.
    boundary_id: the id that stands between documents. `encode` never gives it, it has 0 bytes, `decode` skips it.
    lossless: whether decode(encode(text)) == text for every text.
    statement: one sentence that says so, or says what is lost.

    A subclass is rebuilt from `content`, the bytes of its one file, and `details`, a JSON object of keyword arguments.
    """

    kinds: ClassVar[Registry[type["Tokenizer"]]] = Registry("tokenizer kind")
    name: ClassVar[str]
    file_name: ClassVar[str | None]

    def __init__(
        self,
        content: bytes,
        details: dict[str, Any],
        pieces: list[bytes],
        boundary_id: int,
        lossless: bool,
        statement: str,
    ):
        """`pieces` holds the text of every id as UTF-8 bytes, b"" for the boundary."""
        self._content = content
        self._details = details
        self._pieces = pieces
        self._piece_lengths = np.array([len(piece) for piece in pieces], np.int32)
        self.vocabulary_size = len(pieces)
        self.boundary_id = boundary_id
        self.lossless = lossless
        self.statement = statement

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """Ids of `text`, int32 [tokens]; at least one unless the text is empty."""

    def encode_with_lengths(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Ids and the UTF-8 bytes each stands for, both int32 [tokens]; the lengths sum to the bytes of `text`.

        Bytes that no token covers count for the token after them, at the end of the text for the last token. Where a
        character is split over several tokens, each counts its own bytes.
        """
        ids = self.encode(text)
        if self._join(ids) == text.encode():
            return ids, self._piece_lengths[ids]
        return self._align(text)

    def _align(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """What `encode_with_lengths` gives where the pieces of the ids are not the text itself."""
        raise AssertionError(f"{self.name} tokenizer: the pieces of {text[:40]!r} do not add up to it")

    def decode(self, ids: Any) -> str:
        """The text of `ids` (a sequence or array of integers); bytes that are no UTF-8 become U+FFFD.

        Raises InvalidInput for an id outside the vocabulary.
        """
        return self._join(self._checked(ids)).decode("utf-8", errors="replace")

    def _checked(self, ids: Any) -> np.ndarray:
        ids = np.asarray(ids, np.int64).reshape(-1)
        for limit in (ids.min(), ids.max()) if ids.size else ():
            require(0 <= limit < self.vocabulary_size, "token id", int(limit), f"from 0 to {self.vocabulary_size - 1}")
        return ids

    def _join(self, ids: np.ndarray) -> bytes:
        return b"".join(map(self._pieces.__getitem__, ids.tolist()))

    @functools.cached_property
    def hash(self) -> str:
        """sha256, in hexadecimal, of all that is saved; equal recipes on equal texts give equal hashes."""
        return _hash(self.name, self._details, self._content)

    def save(self, folder: Path) -> None:
        """Writes the tokenizer into `folder`, which is made if missing; each file appears whole or not at all."""
        folder = Path(folder)
        if self.file_name is not None:
            write_whole(folder / self.file_name, self._content)
        meta = {"kind": self.name, "details": self._details, "hash": self.hash, "statement": self.statement}
        write_json(folder / META, meta)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` wrote into `folder`, equal in every id and in its hash.

    Raises InvalidInput where the folder is missing, or its files are not those that were saved.
    """
    folder = Path(folder)
    if not (folder / META).is_file():
        raise InvalidInput(f"no tokenizer in {folder}: {META} is missing")
    try:
        meta = json.loads((folder / META).read_text("utf-8"))
        name, details, expected = meta["kind"], meta["details"], meta["hash"]
        kind = Tokenizer.kinds[name]
        content = b"" if kind.file_name is None else (folder / kind.file_name).read_bytes()
    except FileNotFoundError as error:
        raise InvalidInput(f"the tokenizer in {folder} is damaged: {Path(error.filename).name} is missing") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"the tokenizer in {folder} is damaged: {META} cannot be read ({error})") from None
    if _hash(name, details, content) != expected:
        raise InvalidInput(f"the tokenizer in {folder} is damaged: its content does not match the hash in {META}")
    return kind(content, **details)


def _hash(name: str, details: dict[str, Any], content: bytes) -> str:
    head = json.dumps([name, details], sort_keys=True).encode()
    return hashlib.sha256(head + b"\n" + content).hexdigest()


def character_bytes(text: str) -> np.ndarray:
    """UTF-8 bytes of each character, int32 [characters]."""
    code = code_points(text)
    return (1 + (code >= 0x80) + (code >= 0x800) + (code >= 0x10000)).astype(np.int32)


def code_points(text: str) -> np.ndarray:
    """Code point of each character, uint32 [characters]."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def byte_offsets(text: str) -> np.ndarray:
    """Where each character begins in the UTF-8 bytes of `text`, and their end: int64 [characters + 1]."""
    return np.concatenate([[0], np.cumsum(character_bytes(text), dtype=np.int64)])


def lengths_from_spans(starts: np.ndarray, ends: np.ndarray, own: np.ndarray, total: int) -> np.ndarray:
    """Byte lengths that sum to `total`, from the byte span [start, end) a library reports for each token.

    A token counts from the end of what came before to its own end. Tokens that share characters (bytes of one
    character: some libraries give each the whole character's span, some give it all to the last) count their `own`
    bytes, provided these add up to what the tokens cover together. All arrays are int [tokens]; returns int32 [tokens].
    """
    if len(ends) == 0:
        return np.zeros(0, np.int32)
    reached = np.maximum.accumulate(ends)
    before = np.concatenate([[0], reached[:-1]])
    lengths = reached - before
    apart = (reached[:-1] <= starts[1:]) & ~((ends[:-1] == starts[:-1]) & (own[:-1] > 0))
    first = np.flatnonzero(np.concatenate([[True], apart]))
    last = np.concatenate([first[1:], [len(ends)]]) - 1
    begin = np.clip(starts[first], before[first], reached[last])
    fits = (last > first) & (np.add.reduceat(own, first) == reached[last] - begin)
    shared = np.repeat(fits, last - first + 1)
    lengths[shared] = own[shared]
    lengths[first[fits]] += (begin - before[first])[fits]
    lengths[-1] += total - reached[-1]
    return lengths.astype(np.int32)

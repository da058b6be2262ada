"""A corpus as token ids on disk: memory-mapped, with document boundaries and the byte length of every token.

Byte lengths make bits per byte exact: over any stretch of tokens they sum to the bytes of text those tokens stand for.
"""

import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from models.errors import InvalidInput
from train.corpora.corpus import Document


class Encoder(Protocol):
    """What the store asks of a tokenizer."""

    boundary_id: int
    vocabulary_size: int

    @property
    def hash(self) -> str:
        """What tells tokenizers apart that encode differently."""

    def encode_with_lengths(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and the bytes of UTF-8 each stands for, both int32 [N]; the lengths sum to the text's bytes."""


class TooLittleText(InvalidInput):
    """A split of a corpus from which no token can be predicted."""


class TokenStore:
    """Documents one after the other, each opened by the boundary token, whose byte length is 0.

    tokens: uint16 or uint32 [N], memory-mapped.
    byte_lengths: uint16 [N], memory-mapped; the UTF-8 bytes each token stands for.
    document_starts: int64 [D + 1]; document i is tokens[document_starts[i] : document_starts[i + 1]].
    hash: sha256 over tokens, byte lengths, document starts and the tokenizer's hash.
    """

    def __init__(self, folder: Path, meta: dict):
        self.folder = folder
        self.hash: str = meta["hash"]
        self.tokenizer_hash: str = meta["tokenizer_hash"]
        self.token_count: int = meta["token_count"]
        self.byte_count: int = meta["byte_count"]
        self.document_names: tuple[str, ...] = tuple(meta["document_names"])
        self.tokens = _map(folder / "tokens.bin", np.dtype(meta["token_dtype"]), self.token_count)
        self.byte_lengths = _map(folder / "byte_lengths.bin", np.dtype("<u2"), self.token_count)

    @cached_property
    def document_starts(self) -> np.ndarray:
        return np.load(self.folder / "document_starts.npy")

    def document(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids (the boundary token first) and byte lengths of a document, both int32 [N]."""
        start, end = self.document_starts[index], self.document_starts[index + 1]
        return self.tokens[start:end].astype(np.int32), self.byte_lengths[start:end].astype(np.int32)

    @classmethod
    def open(cls, folder: Path) -> "TokenStore":
        """Maps a store that `build` wrote. Raises InvalidInput if the folder holds none, or a damaged one."""
        folder = Path(folder)
        try:
            meta = json.loads((folder / "meta.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{folder} holds no token store: meta.json cannot be read ({error})") from None
        return cls(folder, meta)

    @classmethod
    def build(cls, folder: Path, documents: Iterable[Document], tokenizer: Encoder) -> "TokenStore":
        """Writes a store into `folder` (made if absent), one document in memory at a time, and opens it.

        Documents without text are left out. Raises TooLittleText where fewer than 2 tokens of text are left, and
        InvalidInput where one token stands for more than 65,535 bytes.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        token_dtype = np.dtype("<u2" if tokenizer.vocabulary_size <= 65536 else "<u4")
        names: list[str] = []
        starts = [0]
        byte_count = 0
        tokens_digest, lengths_digest = hashlib.sha256(), hashlib.sha256()
        with (folder / "tokens.bin").open("wb") as tokens, (folder / "byte_lengths.bin").open("wb") as byte_lengths:
            for name, text in documents:
                if not text:
                    continue
                ids, lengths = tokenizer.encode_with_lengths(text)
                if lengths.max(initial=0) > np.iinfo(np.uint16).max:
                    raise InvalidInput(f"a token of document {name!r} stands for more than 65535 bytes")
                encoded_ids = np.concatenate([[tokenizer.boundary_id], ids]).astype(token_dtype).tobytes()
                tokens.write(encoded_ids)
                tokens_digest.update(encoded_ids)
                byte_count += int(lengths.sum())
                encoded_lengths = np.concatenate([[0], lengths]).astype("<u2").tobytes()
                byte_lengths.write(encoded_lengths)
                lengths_digest.update(encoded_lengths)
                names.append(name)
                starts.append(starts[-1] + len(lengths) + 1)
        token_count = starts[-1]
        text_tokens = token_count - len(names)
        if text_tokens < 2:
            raise TooLittleText(
                f"data.corpus holds {len(names)} documents of {text_tokens} tokens in all; it must hold at least 2"
            )
        document_starts = np.array(starts, dtype="<i8")
        np.save(folder / "document_starts.npy", document_starts)
        starts_digest = hashlib.sha256(document_starts.tobytes())
        digests = [digest.hexdigest() for digest in (tokens_digest, lengths_digest, starts_digest)]
        meta = {
            "hash": hashlib.sha256("\0".join([*digests, tokenizer.hash]).encode()).hexdigest(),
            "tokenizer_hash": tokenizer.hash,
            "token_count": token_count,
            "byte_count": byte_count,
            "token_dtype": token_dtype.str,
            "document_names": names,
        }
        (folder / "meta.json").write_text(json.dumps(meta, indent=1), "utf-8")
        return cls.open(folder)


def _map(file: Path, dtype: np.dtype, count: int) -> np.ndarray:
    """A file of `count` numbers, memory-mapped; InvalidInput if it holds another number of bytes."""
    size = file.stat().st_size if file.is_file() else 0
    if size != count * dtype.itemsize:
        raise InvalidInput(
            f"{file} is damaged: it holds {size} bytes, it must hold {count * dtype.itemsize}; "
            f"delete {file.parent} and it is built again"
        )
    return np.memmap(file, dtype=dtype, mode="r", shape=(count,))

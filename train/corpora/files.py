"""Text of one's own: a file, or all files below a folder."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from models.errors import InvalidInput, invalid, require
from train.corpora.corpus import Corpus, Document, SplitByName, document_of


@Corpus.registry.register("files")
@dataclass(frozen=True)
class Files(SplitByName):
    """A file is a document; a `.jsonl` file is one document per line, a JSON object whose `text_field` is the text.

    Text is kept as it is, line ends included. A file that is not valid UTF-8 is read as Latin-1, and that is said; JSON
    must be UTF-8, and halves of surrogate pairs in it, which are no characters, become U+FFFD. A folder is walked
    recursively in sorted order; files and folders whose names start with a dot are passed over.

    path: a file or folder.
    text_field: the field of a JSON object that holds the text.
    """

    path: str
    text_field: str = "text"

    def __post_init__(self):
        super().__post_init__()
        require(bool(self.path), "path", self.path, "a file or folder")
        require(bool(self.text_field), "text_field", self.text_field, "the name of a field")

    def every_document(self) -> Iterator[Document]:
        for name, file in self._files():
            try:
                if file.suffix == ".jsonl":
                    yield from self._lines(name, file)
                    continue
                document = document_of(name, file.read_bytes())
                if "\0" in document.text:
                    raise InvalidInput(f"data.corpus.path: {file} is not text: it holds a zero byte")
                if document.text:
                    yield document
            except OSError as error:
                raise InvalidInput(f"data.corpus.path: {file} cannot be read: {error.strerror}") from error

    def _files(self) -> Iterator[tuple[str, Path]]:
        """Names relative to the folder, and where they are."""
        root = Path(self.path).expanduser()
        if root.is_file():
            yield root.name, root
        elif root.is_dir():
            found = []
            for parent, folders, files in os.walk(root):
                folders[:] = [folder for folder in folders if not folder.startswith(".")]
                found += [Path(parent) / file for file in files if not file.startswith(".")]
            named = ((file.relative_to(root).as_posix(), file) for file in found if file.is_file())
            yield from sorted(named)
        else:
            raise invalid("data.corpus.path", self.path, "a file or folder that exists")

    def _lines(self, name: str, file: Path) -> Iterator[Document]:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                text = self._text(f"{file}, line {number}", line)
                if text:
                    yield Document(f"{name}:{number}", text)

    def _text(self, place: str, line: bytes) -> str:
        try:
            value = json.loads(line)
        except ValueError as error:
            raise InvalidInput(f"data.corpus.path: {place} is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise InvalidInput(f"data.corpus.path: {place} is not a JSON object")
        if self.text_field not in value:
            fields = ", ".join(value) or "no fields"
            raise invalid("data.corpus.text_field", self.text_field, f"a field of {place}, which has {fields}")
        text = value[self.text_field]
        if not isinstance(text, str):
            raise InvalidInput(f"data.corpus.text_field: {self.text_field!r} of {place} is not a string")
        return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

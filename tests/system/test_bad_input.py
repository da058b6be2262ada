"""Mistakes: each is one line that names what and what is allowed, and leaves nothing lost or half-written."""

import resource
import shutil

import pytest

from tests.system.tiny import command, end, one_line, read_json, start, write_study
from train.checkpoints import saved_steps
from train.corpora import Files
from train.lease import Lease
from train.tokenizers.byte_bpe import ByteBPE
from train.tokenizers.character import Character


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A configuration file without a sweep."""
    path = write_study(tmp_path_factory.mktemp("bad"))
    path.write_text(path.read_text().split("def get_sweep")[0])
    return path


@pytest.fixture(scope="module")
def trained(study, tmp_path_factory):
    """A study folder with a finished run."""
    output = tmp_path_factory.mktemp("trained")
    assert command("train", study, "--output", output).status == 0
    return output


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the finished run's folder, to be spoilt."""
    shutil.copytree(trained / "tiny", tmp_path / "tiny")
    (folder,) = (tmp_path / "tiny" / "runs").iterdir()
    return folder


def leftovers(folder):
    """Files that a refused command left in a run folder, but for what says that it was refused."""
    said = {"error.txt", "owner.lock", "study.json"}
    return [path for path in folder.rglob("*") if path.is_file() and path.name not in said]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ("model.position.name=ropee",),
            "config.model.position.name = 'ropee' is not allowed; it must be one of alibi, ",
        ),
        (("tokenizer.name=bytes",), "config.tokenizer.name = 'bytes' is not allowed; it must be one of "),
        (
            ("data.corpus.name=bible",),
            "config.data.corpus.name = 'bible' is not allowed; it must be one of books, files",
        ),
        (("optimizer.name=sgd",), "config.optimizer.name = 'sgd' is not allowed; it must be one of adafactor, adamw"),
        (("schedule.name=step",), "config.schedule.name = 'step' is not allowed; it must be one of "),
        (("train.stpes=3",), "config.train.stpes is unknown (did you mean steps?); config.train has the fields length"),
        (("model.heads=3",), "config.model.heads = 3 is not allowed; it must be a divisor of width = 16"),
        (("model.kv_heads=3",), "config.model.kv_heads = 3 is not allowed; it must be a divisor of heads = 2"),
        (("sharding.mesh.fsdp=2",), "mesh of fsdp 2 needs 2 devices, but there are only 1 device"),
        (
            ("data.corpus.path=nowhere",),
            "data.corpus.path = 'nowhere' is not allowed; it must be a file or folder that",
        ),
        (("tokenizer.name=byte_bpe", "tokenizer.vocabulary_size=90000"), "tokenizer.vocabulary_size = 90000 is not"),
        (("train.length=5000",), "train.length = 5000 is not allowed; it must be at most"),
        (
            ("model.position.name=learned", "model.position.length=8"),
            "config.train.length = 16 is not allowed; it must",
        ),
    ],
)
def test_a_configuration_that_cannot_be(study, tmp_path, overrides, words):
    ended = command("run", study, "--output", tmp_path, *(f"--config.{override}" for override in overrides))
    assert ended.status == 2
    line = one_line(ended.err)
    assert line.startswith("longreach: ") and words in line
    assert leftovers(tmp_path) == []


def test_a_configuration_file_that_changed_since_its_sweep_began(study, tmp_path):
    ended = command("worker", study, "--output", tmp_path, "--point", "a run of before")
    assert ended.status == 2
    assert one_line(ended.err) == f"longreach: {study} changed since this sweep began; start it again"
    assert leftovers(tmp_path) == []


def test_a_batch_that_the_devices_do_not_divide(study, tmp_path):
    for changes, words in (
        (
            ("batch_size=6",),
            "train.batch_size = 6 is not allowed; it must be a multiple of data × fsdp = 4, the devices",
        ),
        (("batch_size=8", "accumulation=4"), "train.accumulation = 4 is not allowed; it must be such that a part of"),
    ):
        asked = (f"--config.train.{change}" for change in changes)
        ended = end(start("train", study, "--output", tmp_path, *asked, devices=4))
        assert ended.status == 2 and words in one_line(ended.err)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("text", "words"), [(None, "holds no text"), ("", "holds no text"), ("x", "at least 2")])
def test_a_corpus_of_nothing(study, tmp_path, text, words):
    texts = tmp_path / "none"
    texts.mkdir()
    if text is not None:
        (texts / "a.txt").write_text(text)
    ended = command("train", study, "--output", tmp_path / "studies", f"--config.data.corpus.path={texts}")
    assert ended.status == 2 and words in one_line(ended.err)
    assert leftovers(tmp_path / "studies") == []


def test_documents_shorter_than_the_length_are_packed_where_asked(study, tmp_path):
    texts = tmp_path / "short"
    texts.mkdir()
    for i in range(6):
        (texts / f"{i}.txt").write_text("short " * (i + 1))
    asked = ("--config.train.steps=3", f"--config.data.corpus.path={texts}", "--config.train.length=64")
    ended = command("train", study, "--output", tmp_path / "a", *asked)
    assert ended.status == 2 and '"documents" pads shorter text' in one_line(ended.err)
    ended = command("train", study, "--output", tmp_path / "b", *asked, "--config.data.packing=documents")
    assert ended.status == 0, ended.err


def test_configuration_files_that_cannot_be_read(study, tmp_path):
    for text, words in (
        (None, "no configuration file"),
        ("def get_config(:", ", line 1: SyntaxError: invalid syntax"),
        ("raise KeyError('x')", ", line 1: KeyError: 'x'"),
        ("config = 1", "defines no get_config function"),
    ):
        file = tmp_path / "own.py"
        if text is not None:
            file.write_text(text)
        ended = command("run", file, "--output", tmp_path / "studies")
        assert ended.status == 2 and words in one_line(ended.err)
        assert not (tmp_path / "studies").exists()


def test_an_output_folder_that_is_none(study, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for name in ("run", "train", "sweep"):
        ended = command(name, study, "--output", file)
        assert ended.status == 2 and str(file) in one_line(ended.err)
    assert file.read_text() == "mine"


def test_two_processes_on_one_run_folder(study, run):
    (run / "finished.json").unlink()
    before = sorted(path for path in run.rglob("*"))
    with Lease(run):
        ended = command("train", study, "--output", run.parents[2])
        assert ended.status == 2
        assert f"run folder {run} is in use by process " in one_line(ended.err)
    assert sorted(path for path in run.rglob("*")) == sorted({*before, run / "owner.lock"})
    assert command("train", study, "--output", run.parents[2]).status == 0


def test_held_out_text_that_changed_since_training(study, run):
    texts = study.parent / "texts"
    file = texts / next(Files(str(texts)).documents("held_out")).name
    before = file.read_bytes()
    try:
        file.write_bytes(before[:300])
        ended = command("evaluate", run)
    finally:
        file.write_bytes(before)
    assert ended.status == 2 and "data.corpus now holds other held-out text than the run began with" in one_line(
        ended.err
    )


@pytest.mark.parametrize("recipe", [ByteBPE(vocabulary_size=257), Character()])
def test_the_wrong_tokenizer_for_a_checkpoint(run, recipe):
    """One of the same vocabulary size, and one of another, which would not even fit."""
    shutil.rmtree(run / "tokenizer")
    recipe.train(["some other text altogether"]).save(run / "tokenizer")
    for name in ("evaluate", "sample"):
        ended = command(name, run)
        assert ended.status == 2
        assert f"{run / 'tokenizer'} is not the tokenizer of this checkpoint" in one_line(ended.err)
    # Nor where the run's own note of its tokenizer is gone: the checkpoint has one.
    (run / "provenance.json").unlink()
    assert command("evaluate", run).status == 2


def test_checkpoints_that_are_missing_or_damaged(run):
    ended = command("evaluate", run, "--step", 5)
    assert ended.status == 2 and "cannot be used: it does not exist; saved steps: 8, 12" in one_line(ended.err)
    for file in (path for path in (run / "checkpoints" / "12" / "parameters").rglob("*") if path.is_file()):
        file.write_bytes(b"\0" + file.read_bytes()[1:])
    ended = command("sample", run, "--tokens", 3)
    assert ended.status == 0 and "step 8 is used instead" in one_line(ended.err)
    shutil.rmtree(run / "checkpoints" / "8" / "parameters")
    ended = command("evaluate", run)
    assert ended.status == 2 and "is damaged" in one_line(ended.err)
    shutil.rmtree(run / "checkpoints")
    ended = command("evaluate", run)
    assert ended.status == 2 and "holds no checkpoint" in one_line(ended.err)


def test_folders_that_are_no_runs(run, tmp_path):
    ended = command("evaluate", tmp_path / "tiny")
    assert ended.status == 2 and f"is a study, with the runs runs/{run.name}" in one_line(ended.err)
    ended = command("sample", tmp_path)
    assert ended.status == 2 and "is not a run folder: it holds no config.json" in one_line(ended.err)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("train.steps=5",), "config.train.steps cannot be overridden here: a trained run takes config.model"),
        (("model.width=32",), "asks for embedding of shape (257, 32), the checkpoint holds (257, 16)"),
        (("model.position.name=learned",), "of shape (16, 16), the checkpoint holds none"),
        (
            ("model.position.scaling.name=yarm",),
            "config.model.position.scaling.name = 'yarm' is not allowed; it must be",
        ),
        (("evaluation.lengths=0",), "config.evaluation.lengths = (0,) is not allowed"),
        (
            ("evaluation.lengths=(16, 200)",),
            "tokens_per_document = 100 is not allowed; it must be at least 200, the longest of lengths and ",
        ),
        (
            ("model.span.name=prefix",),
            "model.span = 'prefix' is not allowed; it must be a span that sees nothing later",
        ),
    ],
)
def test_overrides_that_a_checkpoint_cannot_be_read_under(run, overrides, words):
    ended = command("evaluate", run, *(f"--config.{override}" for override in overrides))
    assert ended.status == 2 and words in one_line(ended.err)
    assert not (run / "evaluation").exists()


def test_beyond_a_learned_table_a_row_is_undefined_and_a_sample_refused(study, tmp_path):
    asked = ("--config.model.position.name=learned", "--config.train.steps=3")
    assert command("train", study, "--output", tmp_path, *asked).status == 0
    (run,) = (tmp_path / "tiny" / "runs").iterdir()
    ended = command("evaluate", run)
    assert ended.status == 0 and "32: undefined" in ended.out
    (file,) = (run / "evaluation").iterdir()
    assert [row["status"] for row in read_json(file)["rows"]] == ["ok", "ok", "undefined", "undefined"]
    ended = command("sample", run, "--tokens", 30)
    assert ended.status == 2 and "at most 16" in one_line(ended.err)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--tokens", 0), "--tokens = 0 is not allowed"),
        (("--samples", 0), "--samples = 0 is not allowed"),
        (("--temperature", -1), "temperature = -1.0 is not allowed"),
        (("--top-p", 0), "top_p = 0.0 is not allowed"),
        (("--seed", -1), "--seed = -1 is not allowed; it must be at least 0 and below 4294967296"),
        (("--seed", 2**32), "--seed = 4294967296 is not allowed"),
    ],
)
def test_samples_that_cannot_be_drawn(run, arguments, words):
    ended = command("sample", run, *arguments)
    assert ended.status == 2 and words in one_line(ended.err)


def test_processes_that_cannot_work_together(study):
    for arguments, words in (
        (("--process", 0), "given together"),
        (("--coordinator", "127.0.0.1:1", "--processes", 2, "--process", 2), "--process = 2 is not allowed"),
        (("--cluster", "--processes", 2), "it must be left out with --cluster"),
    ):
        ended = command("train", study, *arguments)
        assert ended.status == 2 and words in one_line(ended.err)


@pytest.mark.parametrize("bytes_a_file", [3_000, 20_000])
def test_a_disk_that_is_full(study, trained, tmp_path, bytes_a_file):
    """No file may grow beyond some bytes: the metrics or the first checkpoint cannot be written."""
    asked = ("train", study, "--output", tmp_path)  # whose text the finished run has prepared
    process = start(*asked)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (bytes_a_file, bytes_a_file))
    ended = end(process)
    assert ended.status in (1, 2)
    line = one_line(ended.err)
    assert "File too large" in line or "the disk is full" in line
    points = read_json(tmp_path / "tiny" / "study.json")["points"]
    (run,) = (tmp_path / "tiny" / "runs" / point["run_id"] for point in points)
    assert saved_steps(run / "checkpoints") == [] and not (run / "finished.json").exists()
    ended = command(*asked)
    assert ended.status == 0, ended.err
    assert read_json(run / "finished.json")["step"] == 12

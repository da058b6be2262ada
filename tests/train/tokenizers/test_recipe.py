"""Training: deterministic across processes, quiet, of the size asked for, and refusing clearly."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.errors import InvalidInput
from tests.train.tokenizers.samples import SIZES, TEXTS, TRAINED, recipe
from train.configuration import from_config_dict, to_config_dict
from train.tokenizers import TokenizerRecipe

ROOT = Path(__file__).parents[3]
HASHES = """
from tests.train.tokenizers.samples import TEXTS, TRAINED, recipe
for name in TRAINED:
    print(name, recipe(name).train(TEXTS).hash)
"""


def test_every_kind_is_registered():
    assert sorted(TokenizerRecipe.registry) == sorted(
        ["byte", "character", "word", "byte_bpe", "bpe", "wordpiece", "unigram", "file"]
    )


def test_hashes_repeat_in_another_process(tokenizers_by_name):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", HASHES]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert dict(line.split() for line in run.stdout.splitlines()) == {
        name: tokenizers_by_name[name].hash for name in TRAINED
    }
    assert run.stderr == ""


def test_hashes_differ_between_kinds_and_sizes(tokenizers_by_name):
    hashes = {tokenizer.hash for tokenizer in tokenizers_by_name.values()}
    assert len(hashes) == len(tokenizers_by_name)
    for name in SIZES:
        assert recipe(name, vocabulary_size=SIZES[name] - 1).train(TEXTS).hash not in hashes


@pytest.mark.parametrize("name", TRAINED)
def test_the_vocabulary_has_the_size_asked_for(tokenizers_by_name, name):
    tokenizer = tokenizers_by_name[name]
    expected = SIZES.get(name, 257 if name == "byte" else len(set("".join(TEXTS))) + 2)
    assert tokenizer.vocabulary_size == expected
    assert 0 <= tokenizer.boundary_id < expected


@pytest.mark.parametrize("name", TRAINED)
def test_any_iterable_will_do_and_empty_texts_change_nothing(tokenizers_by_name, name):
    assert recipe(name).train(iter(["", *TEXTS, ""])).hash == tokenizers_by_name[name].hash


@pytest.mark.parametrize("name", TRAINED)
def test_training_is_quiet(name, capfd):
    recipe(name).train(TEXTS)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", TRAINED)
def test_configuration_round_trip(name):
    chosen = recipe(name)
    assert from_config_dict(TokenizerRecipe, to_config_dict(chosen)) == chosen


@pytest.mark.parametrize("name", [*SIZES, "character"])
@pytest.mark.parametrize("text", [TEXTS[0], "ab ab\n"])
def test_the_largest_vocabulary_is_told_and_works(name, text):
    with pytest.raises(InvalidInput) as caught:
        recipe(name, vocabulary_size=50_000).train([text])
    start, end = "tokenizer.vocabulary_size = 50000 is not allowed; it must be at most ", ": the text supports no more"
    message = str(caught.value)
    assert message.startswith(start)
    assert message.endswith(end)
    most = int(message.removeprefix(start).removesuffix(end))
    assert recipe(name, vocabulary_size=most).train([text]).vocabulary_size == most
    with pytest.raises(InvalidInput, match=f"at most {most}:"):
        recipe(name, vocabulary_size=most + 1).train([text])


@pytest.mark.parametrize(
    ("name", "least"),
    [("word", 3), ("character", 3), ("wordpiece", 3), ("byte_bpe", 257), ("bpe", 259), ("unigram", 259)],
)
def test_too_small_a_vocabulary_is_refused_by_the_configuration(name, least):
    recipe(name, vocabulary_size=least)
    with pytest.raises(InvalidInput, match=f"^vocabulary_size = {least - 1} is not allowed; .*at least {least}"):
        recipe(name, vocabulary_size=least - 1)


@pytest.mark.parametrize("name", ["bpe", "unigram", "wordpiece"])
def test_a_vocabulary_smaller_than_the_alphabet_is_refused(name):
    size = 260 if name != "wordpiece" else 20
    with pytest.raises(InvalidInput, match=f"^tokenizer.vocabulary_size = {size} .* at least ") as caught:
        recipe(name, vocabulary_size=size).train(TEXTS)
    least = int(str(caught.value).split("at least ")[1].split(":")[0])
    assert recipe(name, vocabulary_size=least).train(TEXTS).vocabulary_size == least


@pytest.mark.parametrize("name", [name for name in TRAINED if name != "byte"])
@pytest.mark.parametrize("empty", [[], ["", ""]])
def test_empty_text_is_refused(name, empty):
    with pytest.raises(InvalidInput, match=f"the training text is empty; tokenizer.name = '{name}' needs"):
        recipe(name).train(empty)


@pytest.mark.parametrize(("name", "text"), [("word", " \n"), ("wordpiece", " \n"), ("bpe", "\n\n"), ("unigram", "\n▁")])
def test_text_with_nothing_to_learn_is_refused(name, text):
    with pytest.raises(InvalidInput, match="the training text is empty"):
        recipe(name).train([text])

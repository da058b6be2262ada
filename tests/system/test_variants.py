"""Every block by its name, as a user tries it: one override, 200 steps on real text, read at twice the length."""

from pydoc_data.topics import topics

import numpy as np
import pytest

from models.attention import Visibility
from models.experts import Experts
from models.feed_forward import ACTIVATIONS
from models.mixers import Mixer
from models.norms import NORMS
from models.placements import Placement
from tests.system.tiny import end, held_out_losses, read_json, start
from train.corpora import Files
from train.data import DataConfig, prepare
from train.tokenizers.byte_bpe import ByteBPE

LENGTH, STEPS, VOCABULARY = 64, 200, 512

CONFIG = f"""
from pathlib import Path

from experiments.config import StudyConfig
from experiments.configs import baseline
from experiments.overrides import apply_overrides

def get_config():
    config = baseline.get_config()
    fields = {{
        "model.layers": 2,
        "model.width": 64,
        "tokenizer.vocabulary_size": {VOCABULARY},
        "data.corpus.name": "files",
        "data.corpus.path": str(Path(__file__).parent / "texts"),
        "train.length": {LENGTH},
        "train.steps": {STEPS},
        "train.evaluate_every": {STEPS},
        "schedule.warmup": 20,
        "checkpoint.every": {STEPS},
        "evaluation.lengths": ({LENGTH}, {2 * LENGTH}),
        "evaluation.scalings": (),
        "evaluation.documents": 4,
        "evaluation.tokens_per_document": 1024,
    }}
    apply_overrides(StudyConfig, config, fields)
    return config
"""

# The lone fields of an alternative are given beside its name.
MIXERS = [
    *Mixer.registry,
    "linear --config.model.mixer.feature_map=relu",
    *(f"softmax --config.model.mixer.query_key_norm={name}" for name in NORMS),
    "softmax --config.model.mixer.sink=learned",
    "softmax --config.model.mixer.soft_cap=20",
]
EXPERTS = [name for name, kind in Experts.registry.items() if kind.causal]
SPANS = [name for name, kind in Visibility.registry.items() if kind().is_causal()]
VARIANTS = [
    *(f"norm.placement.name={name}" for name in Placement.registry),
    *(f"norm.name={name}" for name in NORMS),
    *(f"feed_forward.name={name}" for name in ACTIVATIONS),
    "feed_forward.bias=true",
    *(f"experts.name={name}" for name in EXPERTS),
    "experts.name=token_choice --config.model.experts.shared=1",
    *(f"mixer.name={name}" for name in MIXERS),
    *(f"kv_heads={heads}" for heads in (1, 2)),
    *(f"span.name={name}" for name in SPANS),
    "logit_soft_cap=30",
]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A configuration file beside its text: half a megabyte of documentation in English."""
    folder = tmp_path_factory.mktemp("variants")
    (folder / "texts").mkdir()
    for name, text in topics.items():
        (folder / "texts" / f"{name}.txt").write_text(text, "utf-8")
    path = folder / "variants.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def unigram_entropy(config, surroundings) -> float:
    """Of the held-out text: nats a token that no model without context can go below."""
    texts = DataConfig(corpus=Files(str(config.parent / "texts")))
    counts = np.bincount(prepare(texts, ByteBPE(vocabulary_size=VOCABULARY)).held_out.tokens)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


@pytest.mark.slow
@pytest.mark.parametrize("override", VARIANTS)
def test_it_learns_from_context_and_is_restored_and_read_at_twice_its_length(
    override, config, unigram_entropy, tmp_path
):
    arguments = f"--config.model.{override}".split()
    ended = end(start("run", config, "--output", tmp_path, *arguments), seconds=600)
    assert ended.status == 0, ended.err
    (run,) = (tmp_path / "baseline" / "runs").iterdir()
    ((step, held_out),) = held_out_losses(run)
    assert step == STEPS and held_out < unigram_entropy - 0.1
    (evaluation,) = (run / "evaluation").glob("*.json")
    rows = {row["length"]: row for row in read_json(evaluation)["rows"] if row["protocol"] == "non_overlapping"}
    assert all(row["status"] == "ok" for row in rows.values()) and set(rows) == {LENGTH, 2 * LENGTH}
    # Restored from the checkpoint, the model reads as it did when it was saved.
    assert abs(rows[LENGTH]["nats_per_token"] - held_out) < 0.5
    assert rows[2 * LENGTH]["nats_per_token"] < unigram_entropy

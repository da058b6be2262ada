"""Ablations: what each changes, what cannot take it, paired intervals, verdicts that follow from them, entropy."""

import dataclasses
import json
import math
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.evaluation import checkpoint, suite
from experiments.evaluation.attribution import ablations, apply, attribute
from experiments.evaluation.config import EvaluationConfig
from experiments.evaluation.entropy import entropy_by_position, layer_entropy
from experiments.evaluation.suite import Text
from experiments.evaluation.verdict import verdict
from models.attention import Full, Sliding
from models.attention.visibility import Sinks
from models.config import LayerConfig, ModelConfig
from models.errors import InvalidInput
from models.mixers import LinearMixer
from models.positions import ALiBi, Learned, NoPosition, Rotary, Sinusoidal
from models.positions.index import Clipped, Identity, Reindexed
from models.positions.scheme import contiguous_tokens
from models.positions.temperature import LogN, NoTemperature
from models.transformer import Transformer, init_parameters
from train.config import RunConfig, TrainingConfig

TRAINED, LENGTH = 8, 16
CONFIG = EvaluationConfig(lengths=(8,), attribution=(LENGTH,), resamples=50, batch_tokens=64)
MODEL = ModelConfig(vocabulary_size=11, layers=1, width=16, heads=2, position=ALiBi())
generator = np.random.default_rng(0)
TOKENS = [generator.integers(0, 11, size).astype(np.int32) for size in (33, 41, 49)]
TEXT = Text(TOKENS, [np.full(len(ids) - 1, 2) for ids in TOKENS], tuple(map(str, range(len(TOKENS)))))


def score_like(nats_of):
    """Scores without a network: `nats_of(model, length, document)` nats for every token."""

    def score(model, parameters, documents, windows, length, batch_tokens):
        return [
            np.full(window.stop - window.scored, nats_of(model, length, window.document), np.float32)
            for window in windows
        ]

    return score


def rows(entry):
    return {(row["ablation"], row["protocol"]): row for row in entry["rows"]}


def test_each_ablation_changes_what_it_says_in_every_layer():
    pattern = (LayerConfig(), LayerConfig(position=NoPosition()), LayerConfig(span=Sliding(4)))
    model = MODEL.replace(layers=3, pattern=pattern)
    changed = {name: apply(model, parts) for name, parts in ablations(model, TRAINED).items()}
    assert list(changed) == ["clipped", "log_n", "clipped_log_n", "window", "sinks"]
    for name, other in changed.items():
        clips, sharpens = "clipped" in name, "log_n" in name
        index = Clipped(7) if clips else Reindexed(window=4, sinks=4) if name == "sinks" else Identity()
        assert other.layer_position(0).index == other.layer_position(2).index == index
        assert other.layer_position(1) == NoPosition()
        for layer in range(3):
            assert other.layer_temperature(layer) == (LogN(8) if sharpens else NoTemperature())
        span = {"window": Sliding(8), "sinks": Sinks(window=4, sinks=4)}.get(name, Full())
        assert (other.layer_span(0), other.layer_span(1), other.layer_span(2)) == (span, span, Sliding(4))


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"position": NoPosition()}, "clipped", "takes no transform"),
        ({"position": Sinusoidal()}, "clipped", "changes distances"),
        ({"position": ALiBi(index=Clipped(4))}, "clipped_log_n", "changes positions already"),
        ({"temperature": LogN(4)}, "log_n", "changes the scores already"),
        ({"span": Sliding(4)}, "sinks", "hides old tokens already"),
    ],
)
def test_what_a_model_cannot_take_is_refused_with_the_reason(changes, name, words):
    model = MODEL.replace(**changes)
    with pytest.raises(InvalidInput, match=words):
        apply(model, ablations(model, TRAINED)[name])


def test_schemes_that_take_no_distances_get_first_tokens_where_they_are():
    for scheme in (NoPosition(), Sinusoidal()):
        model = MODEL.replace(position=scheme)
        assert apply(model, ablations(model, TRAINED)["sinks"]) == model.replace(span=Sinks(window=4, sinks=4))


def test_differences_are_paired_and_the_verdict_follows_from_them(monkeypatch):
    """Documents differ by whole nats, ablations by tenths in all of them alike: only a paired interval tells them."""

    def nats_of(model, length, document):
        nats = 1.0 + document
        if length > TRAINED and model.span == Full():
            nats += 0.1 if isinstance(model.layer_position(0).index, Clipped) else 0.4
            nats += 0.1 * isinstance(model.temperature, LogN)
        if isinstance(model.span, Sliding):
            nats += 0.2
        return nats

    monkeypatch.setattr(suite, "score_windows", score_like(nats_of))
    result = attribute(lambda length: MODEL, {}, TEXT, TRAINED, CONFIG)
    json.dumps(result, allow_nan=False)
    assert result["trained"] == TRAINED and result["documents"] == 3
    (entry,) = result["lengths"]
    bits = 1 / math.log(2) / 2  # of a nat, in tokens of two bytes
    wanted = {"as_it_is": 0, "training_length": -0.4, "clipped": -0.3, "log_n": 0.1, "clipped_log_n": -0.2}
    wanted |= {"window": -0.2, "sinks": -0.4}
    for (name, protocol), row in rows(entry).items():
        assert row["status"] == "ok" and row["tokens"] == 120
        assert row["length"] == (TRAINED if name == "training_length" else LENGTH)
        assert row["high"] - row["low"] > 0.3
        for value in ("difference", "difference_low", "difference_high"):
            assert row[value] == pytest.approx(wanted[name] * bits, abs=1e-6), (name, protocol, value)
    effects = {(effect["effect"], effect["protocol"]): effect["difference"] for effect in entry["effects"]}
    assert effects["lost", "sliding"] == pytest.approx(0.4 * bits, abs=1e-6)
    assert effects["first_tokens", "non_overlapping"] == pytest.approx(0.2 * bits, abs=1e-6)
    assert effects["windowing", None] == pytest.approx(0, abs=1e-6)
    text = " ".join(entry["verdict"])
    assert "0.289 (0.289 to 0.289) bits per byte are lost from 8 to 16 tokens" in text
    assert "Clipping distances repairs 0.216 (0.216 to 0.216) of the 0.289 bits lost beyond 8" in text
    assert "logarithm of the length loses 0.072" in text
    assert "the first tokens alone repairs all that is lost beyond 8" in text
    assert "the loss of the first tokens costs 0.144" in text
    assert "do not differ to speak of" in text


def test_what_cannot_be_measured_has_a_reason_and_stops_nothing(monkeypatch):
    def nats_of(model, length, document):
        return np.nan if isinstance(model.temperature, LogN) else 1.0

    monkeypatch.setattr(suite, "score_windows", score_like(nats_of))
    model = MODEL.replace(position=Sinusoidal())
    (entry,) = attribute(lambda length: model, {}, TEXT, TRAINED, CONFIG)["lengths"]
    status = {name: row["status"] for (name, _), row in rows(entry).items()}
    assert status == {
        **{"as_it_is": "ok", "clipped": "does not apply", "log_n": "failed", "clipped_log_n": "does not apply"},
        **{"window": "ok", "sinks": "ok", "training_length": "ok"},
    }
    assert rows(entry)["clipped", "sliding"]["difference"] is None
    assert (
        "Clipping distances: does not apply (position.index.name = 'clipped' changes distances" in entry["verdict"][1]
    )
    table = MODEL.replace(position=Learned(length=TRAINED))
    (entry,) = attribute(lambda length: table, {}, TEXT, TRAINED, CONFIG)["lengths"]
    assert rows(entry)["as_it_is", "sliding"]["status"] == "undefined"
    assert len(entry["verdict"]) == 1 and "undefined (length = 16 is not allowed" in entry["verdict"][0]


def test_one_document_gives_no_verdict(monkeypatch):
    monkeypatch.setattr(suite, "score_windows", score_like(lambda *_: 1.0))
    (entry,) = attribute(lambda length: MODEL, {}, Text(*(part[:1] for part in TEXT)), TRAINED, CONFIG)["lengths"]
    assert entry["verdict"] == ["A single document gives no intervals, so no difference can be told from chance."]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.1, 0.3, "are lost"), (-0.3, -0.1, "Nothing"), (-1, 1.1, "to speak of"), (1e-5, 2e-5, "to speak of")],
)
def test_a_loss_is_told_only_by_its_interval(low, high, words):
    value = {"difference": (low + high) / 2, "difference_low": low, "difference_high": high}
    names = ("as_it_is", "training_length", "clipped", "log_n", "clipped_log_n", "window", "sinks")
    table = [{"ablation": name, "protocol": "sliding", "status": "ok", "length": 16, **value} for name in names]
    effects = [{"effect": name, "protocol": "sliding", **value} for name in ("lost", "first_tokens", "windowing")]
    assert words in verdict(table, effects, 8, 16)[0]


def test_lengths_within_training_are_refused():
    with pytest.raises(InvalidInput, match=r"evaluation\.attribution = 16 is not allowed; it must be more than"):
        attribute(lambda length: MODEL, {}, TEXT, 16, CONFIG)
    with pytest.raises(InvalidInput, match="attribution"):
        EvaluationConfig(attribution=(0,))


@pytest.mark.parametrize("scheme", [ALiBi(), Rotary()])
def test_every_ablation_runs_on_the_parameters_as_they_are(scheme):
    model = MODEL.replace(position=scheme)
    parameters = jax.eval_shape(lambda: nn.meta.unbox(init_parameters(model, 0)))
    tokens, where = jnp.zeros((1, LENGTH), jnp.int32), contiguous_tokens(LENGTH)
    for parts in ablations(model, TRAINED).values():
        ablated = Transformer(apply(model, parts))
        hidden, _ = jax.eval_shape(lambda p, ablated=ablated: ablated.apply({"params": p}, tokens, where), parameters)
        assert hidden.shape == (1, LENGTH, 16)


def test_entropy_by_position_of_a_model():
    model = MODEL.replace(layers=3, pattern=(LayerConfig(), LayerConfig(position=NoPosition(), span=Sliding(1))))
    shapes = jax.eval_shape(lambda: nn.meta.unbox(init_parameters(model, 0)))
    parameters = jax.tree.map(lambda leaf: jnp.asarray(generator.normal(0, 0.3, leaf.shape), jnp.float32), shapes)
    found = entropy_by_position(lambda length: model, parameters, TEXT, (64, 32), CONFIG)["curves"]
    assert [(curve["length"], curve["windows"]) for curve in found] == [(32, 2), (64, 0)]
    assert found[1]["reason"] == "no document holds 64 tokens" and found[1]["layers"] == []
    entropy = np.asarray(layer_entropy(model, parameters, jnp.asarray([ids[:32] for ids in TOKENS[:2]])))
    assert entropy.shape == (3, 32)
    np.testing.assert_allclose(entropy[1], 0, atol=1e-6)  # it sees itself alone
    assert np.all(entropy[::2, 1:] > 0.1) and np.all(entropy <= np.log(np.arange(1, 33)) + 1e-5)
    for layer, buckets in enumerate(found[0]["layers"]):
        assert [(bucket["from"], bucket["to"]) for bucket in buckets] == [(0, 16), (16, 22), (22, 32)]
        means = [entropy[layer, bucket["from"] : bucket["to"]].mean() for bucket in buckets]
        assert [bucket["nats"] for bucket in buckets] == pytest.approx(means, rel=1e-5, abs=1e-6)


def test_there_is_no_entropy_without_weights():
    model = MODEL.replace(position=NoPosition(), pattern=(LayerConfig(mixer=LinearMixer()),))
    (curve,) = entropy_by_position(lambda length: model, {}, TEXT, (32,), CONFIG)["curves"]
    assert curve["layers"] == [] and curve["reason"].startswith("mixer.name = 'linear' is not allowed; it must be one")


def test_it_joins_what_was_measured_and_is_measured_once(tmp_path, monkeypatch):
    scored, said = [], []

    def score(model, parameters, documents, windows, length, batch_tokens):
        scored.append(length)
        return [np.ones(window.stop - window.scored, np.float32) for window in windows]

    monkeypatch.setattr(suite, "score_windows", score)
    monkeypatch.setattr(checkpoint, "entropy_by_position", lambda *_: {"curves": []})
    monkeypatch.setattr(checkpoint, "_text", lambda *_: TEXT)
    config = RunConfig(model=MODEL, train=TrainingConfig(length=TRAINED))
    opened = checkpoint.Checkpoint(tmp_path, config, MODEL, {}, config.train.steps)
    series = [checkpoint.Series(label, {}, lambda length: MODEL) for label in ("first", "second")]
    (tmp_path / "evaluation").mkdir()

    def evaluate(evaluation):
        del scored[:]
        checkpoint.evaluate_checkpoint(opened, series, evaluation, said.append)
        return [json.loads((tmp_path / "evaluation" / f"{one.label}.json").read_text()) for one in series]

    plain = evaluate(dataclasses.replace(CONFIG, attribution=()))
    assert scored and "attribution" not in plain[0] and len(said) == 2
    with_it = evaluate(CONFIG)
    assert with_it[0] | plain[0] == with_it[0] and with_it[1] == plain[1]
    assert with_it[0]["attribution"]["lengths"][0]["length"] == LENGTH and with_it[0]["entropy"] == {"curves": []}
    assert scored.count(TRAINED) == 2 and said[2].startswith("attributed first at 16: ")
    assert evaluate(CONFIG) == with_it and not scored
    assert evaluate(dataclasses.replace(CONFIG, attribution=())) == with_it and not scored
    monkeypatch.setattr(checkpoint, "load_tokenizer", lambda _: SimpleNamespace(vocabulary_size=11))
    for lengths, measured in (((), True), ((LENGTH,), True), ((2 * LENGTH,), False)):
        evaluation = dataclasses.replace(CONFIG, attribution=lengths)
        assert checkpoint.all_measured(tmp_path, config, "first", evaluation) is measured
    # Of a study whose runs train at several lengths, each attributes what is beyond its own.
    del said[:]
    mixed = dataclasses.replace(CONFIG, attribution=(4, TRAINED, LENGTH))
    assert checkpoint.all_measured(tmp_path, config, "first", mixed)
    assert evaluate(mixed) == with_it and not scored
    assert said == ["not attributed first at 4, 8: not beyond the 8 tokens of training"]
    within = dataclasses.replace(CONFIG, attribution=(TRAINED,))
    assert checkpoint.all_measured(tmp_path, config, "first", within) and evaluate(within) == with_it and not scored

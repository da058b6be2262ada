"""Pictures of the schemes: their numbers are the schemes' own, and agree with formulas written out in float64."""

import csv
import math

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.command_line import run_command
from experiments.pictures import __main__ as pictures
from experiments.pictures.curves import curve, distances, fixed_schemes, is_learned, learned_curves, quantity
from models.attention import AttentionRule, Full
from models.config import LayerConfig, ModelConfig
from models.positions import T5, ALiBi, PositionScheme, Rotary, Sandwich
from models.positions.index import Clipped
from models.positions.kerple import KerpleLog
from models.positions.scaling import Linear, NTKAware, YaRN
from tests.models.samples import parameters_of, random, tokens_at

HEADS, HEAD_SIZE, LENGTH, TRAINED = 4, 32, 64, 16
MODEL = ModelConfig(vocabulary_size=7, width=HEADS * HEAD_SIZE, heads=HEADS)


def rows_of(path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def call(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["pictures", *arguments])
    run_command(pictures.main)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The files of two schemes, one of each kind."""
    folder = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patch:
        sizes = ["--length", str(LENGTH), "--trained", str(TRAINED), "--output", str(folder)]
        call(patch, "alibi", "rope", *sizes)
    return folder


def test_bias_is_what_the_scheme_adds_to_a_tile_of_zeros(drawn):
    zeros = jnp.zeros((1, HEADS, 1, HEAD_SIZE)), jnp.zeros((1, 1, LENGTH, HEAD_SIZE))
    query, key = tokens_at([[LENGTH - 1]]), tokens_at([list(range(LENGTH))])
    seen = jnp.ones((1, 1, LENGTH), bool)
    added, _ = AttentionRule(ALiBi(), Full()).logits({}, *zeros, query, key, seen, None)
    found = {
        (int(row["head"]), int(row["distance"])): float(row["value"]) for row in rows_of(drawn / "bias_by_distance.csv")
    }
    wanted = {
        (head + 1, int(distance)): float(added[0, head, 0, LENGTH - 1 - distance])
        for head in range(HEADS)
        for distance in distances(LENGTH)
    }
    assert found == wanted
    assert all(value == -(2.0 ** (-2 * head)) * distance for (head, distance), value in found.items())


def test_rotary_scores_are_the_mean_cosine_under_each_scaling_and_transform(drawn):
    base = 10000.0 ** -(np.arange(0, HEAD_SIZE, 2) / HEAD_SIZE)
    factor = LENGTH / TRAINED
    frequencies = {
        "rope": base,
        "rope · linear": base / factor,
        "rope · ntk": (10000.0 * factor ** (HEAD_SIZE / (HEAD_SIZE - 2))) ** -(np.arange(0, HEAD_SIZE, 2) / HEAD_SIZE),
    }
    rows = rows_of(drawn / "score_by_distance.csv")
    for scheme, frequency in frequencies.items():
        found = {int(row["distance"]): float(row["value"]) for row in rows if row["scheme"] == scheme}
        wanted = {distance: np.cos(distance * frequency).mean() for distance in found}
        assert max(abs(found[distance] - wanted[distance]) for distance in found) < 1e-5
    schemes = {row["scheme"] for row in rows}
    assert {"rope · yarn", "rope · dynamic_ntk", "rope · interpolated"} <= schemes
    assert "rope · longrope" not in schemes  # without its lists it changes nothing


def test_spectrum_is_that_of_the_frequencies(drawn):
    rows = rows_of(drawn / "rotary_spectrum.csv")
    for name, scaling in (
        ("linear", Linear(factor=8.0)),
        ("yarn", YaRN(factor=8.0, original_length=TRAINED)),
        # Dynamic NTK at eight times the original length is NTK-aware at eight.
        ("dynamic_ntk", NTKAware(factor=8.0)),
    ):
        some = [row for row in rows if (row["scaling"], row["factor"]) == (name, "8")]
        frequencies = Rotary(scaling=scaling).frequencies(HEAD_SIZE)
        np.testing.assert_allclose([float(row["wavelength"]) for row in some], 2 * math.pi / frequencies, rtol=1e-12)
        turned = 8 * TRAINED * frequencies / (2 * math.pi)
        np.testing.assert_allclose([float(row["turns"]) for row in some], turned, rtol=1e-12)
    page = (drawn / "index.html").read_text(encoding="utf-8")
    slow = int((TRAINED * Rotary().frequencies(HEAD_SIZE) < 2 * math.pi).sum())
    assert f"{slow} of {HEAD_SIZE // 2} pairs of rope turn less than once" in page


def test_the_page_holds_every_figure(drawn):
    page = (drawn / "index.html").read_text(encoding="utf-8")
    assert page.count('role="img"') == 3 and "http" not in page
    names = ("bias_by_distance", "score_by_distance", "rotary_spectrum")
    assert {path.name for path in drawn.iterdir()} == {"index.html"} | {
        f"{n}.{e}" for n in names for e in ("svg", "csv")
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ropee"], ["SCHEME = 'ropee'", "alibi", "rope"]),
        (["t5"], ["'t5' is learned", "--run RUN", "alibi"]),
        (["cope"], ["'cope' has no curve", "by the text", "alibi"]),
        (["none"], ["'none' has no curve", "alibi"]),
        (["alibi", "--length", "1"], ["--length = 1", "at least 2"]),
        (["alibi", "--config.train.steps=3"], ["config.train.steps", "config.model"]),
        (["--run", "nowhere"], ["nowhere is not a run folder"]),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(monkeypatch, capsys, tmp_path, arguments, words):
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, *arguments, "--output", str(tmp_path / "out"))
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert [word for word in words if word not in line] == []
    assert not (tmp_path / "out").exists()


def test_help_names_the_schemes(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, "--help")
    said = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    assert ", ".join(fixed_schemes()) in said and "--trained" in said and "--run" in said


def test_every_scheme_is_of_a_kind():
    by_content = {name for name, cls in PositionScheme.registry.items() if quantity(cls()) is None}
    assert {"none", "cope", "forgetting", "shaw", "deberta"} <= by_content
    learned = {name for name, cls in PositionScheme.registry.items() if is_learned(cls())}
    assert {"t5", "kerple_log", "kerple_power", "fire", "learned", "base_n"} <= learned
    assert {"alibi", "sandwich", "rope", "xpos", "sinusoidal"} <= set(fixed_schemes())
    assert not set(fixed_schemes()) & (by_content | learned)


def test_index_transforms_and_heads_count():
    clipped = curve(ALiBi(index=Clipped(window=5)), "", MODEL, 20)
    at = np.minimum(clipped.distance_N, 5)
    np.testing.assert_array_equal(clipped.value_HxN, -np.array([[0.25], [0.0625], [0.015625], [0.00390625]]) * at)
    sandwich = curve(Sandwich(), "", MODEL, 20)
    cosines = np.cos(np.outer(sandwich.distance_N, 10000.0 ** -(np.arange(0, 128, 2) / 128))).sum(axis=1)
    np.testing.assert_allclose(sandwich.value_HxN, cosines / np.array([[2], [4], [6], [8]]), rtol=1e-6)


def test_learned_curves_are_those_of_each_layer():
    pattern = (LayerConfig(position=Rotary()), LayerConfig(position=T5(buckets=8, max_distance=16)))
    model = MODEL.replace(layers=5, position=KerpleLog(), pattern=(*pattern, LayerConfig()), layer_loop="scan")
    parameters = parameters_of(model)
    found = {(one.title, one.layer): one for one in learned_curves(model, parameters, 12)}
    assert set(found) == {("rope", None), ("t5", 2), ("kerple_log", 3), ("t5", 5)}
    scanned, last = parameters["units"]["layer_1"]["attention"], parameters["last_unit"]["layer_1"]["attention"]
    for layer, table in ((2, scanned["position_bias"][0]), (5, last["position_bias"])):
        np.testing.assert_array_equal(found["t5", layer].value_HxN[:, :4], np.asarray(table[:4]).T)
    held = parameters["units"]["layer_2"]["attention"]
    raw = (np.asarray(held[f"position_{name}"][0], np.float64) for name in ("r1", "r2"))
    r1, r2 = (np.log1p(np.exp(value))[:, None] for value in raw)
    bias = -r1 * np.log1p(r2 * found["kerple_log", 3].distance_N)
    np.testing.assert_allclose(found["kerple_log", 3].value_HxN, bias, rtol=1e-6)


def test_a_learned_table_of_positions_gives_its_cosines():
    scheme = PositionScheme.registry["learned"](length=12)
    table = random(12, 8)
    found = curve(scheme, "", MODEL, 12, {"table": table})
    unit = np.asarray(table, np.float64) / np.linalg.norm(table, axis=1, keepdims=True)
    np.testing.assert_allclose(found.value_HxN[0], (unit @ unit[-1])[::-1], atol=1e-6)

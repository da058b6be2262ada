"""Biases and temperatures against their papers' formulas, written again in float64, and against transformers' own."""

import functools
import math

import jax.numpy as jnp
import numpy as np
import pytest

from models.attention import AttentionRule, Full, blockwise_attention, reference_attention
from models.positions import T5, ALiBi, PositionScheme, Tile
from models.positions.distance_function import DistanceFunction
from models.positions.fire import FIRE
from models.positions.kerple import KerpleLog, KerplePower
from models.positions.sandwich import Sandwich
from models.positions.temperature import (
    Constant,
    DroPETemperature,
    Llama4Temperature,
    LogN,
    ScalableSoftmax,
    Temperature,
    YaRNTemperature,
)
from tests.conformance.rows import cases
from tests.models.samples import compiled, random, tokens_at

POSITIONS = np.array([0, 1, 2, 3, 7, 31, 32, 127, 129, 511, 512, 700, 5000, 16383, 60_000])
HEADS = 6  # no power of two


def slopes(heads: int) -> list[float]:
    """Press et al.: a geometric sequence; heads beyond a power of two take every second one of twice as many."""
    power = 2 ** math.floor(math.log2(heads))
    if power == heads:
        return [2.0 ** (-8 * h / heads) for h in range(1, heads + 1)]
    return slopes(power) + slopes(2 * power)[0::2][: heads - power]


def alibi(parameters, distance, position, heads):
    return -np.array(slopes(heads))[:, None, None] * distance


def t5(parameters, distance, position, heads, exact=16, buckets=32, farthest=128):
    """Raffel et al.: a bucket each below 16, then logarithmic ones up to 128, all beyond in the last."""

    def bucket(d: int) -> int:
        # Whole numbers alone: bucket b begins where Δ^16 ≥ 16^(16 - (b - 16)) · 128^(b - 16).
        if d < exact:
            return d
        steps = range(buckets - exact)
        return max(exact + b for b in steps if d ** len(steps) >= exact ** (len(steps) - b) * farthest**b)

    index = np.vectorize(bucket, otypes=[int])(np.maximum(distance, 0).astype(object))
    return np.moveaxis(parameters["bias"][index], -1, 0)


def softplus(x):
    return np.log1p(np.exp(x))


def kerple_log(parameters, distance, position, heads):
    r1, r2 = softplus(parameters["r1"])[:, None, None], softplus(parameters["r2"])[:, None, None]
    return -r1 * np.log(1 + r2 * distance)


def kerple_power(parameters, distance, position, heads):
    r1, r2 = softplus(parameters["r1"])[:, None, None], 2 / (1 + np.exp(-parameters["r2"]))[:, None, None]
    return -r1 * distance**r2


def sandwich(parameters, distance, position, heads, dimensions=128):
    head = np.arange(1, heads + 1)[:, None, None]
    total = sum(np.cos(distance / 10000 ** (2 * i / dimensions)) for i in range(dimensions // 2))
    return total / (8 * head / heads)


def fire(parameters, distance, position, heads, threshold=512):
    def psi(x):
        return np.log(abs(parameters["c"]) * x + 1)

    farthest = np.maximum(position, abs(parameters["multiplier"]) * threshold)[:, None]
    share = psi(distance) / psi(farthest)
    hidden = np.maximum(share[..., None] * parameters["hidden_weight"] + parameters["hidden_bias"], 0)
    return np.moveaxis(hidden @ parameters["output_weight"], -1, 0)


def logarithm(parameters, distance, position, heads):
    return np.broadcast_to(-np.log(1 + distance), (heads, *distance.shape))


CASES: dict[str, tuple[PositionScheme, object, str]] = {
    "alibi": (ALiBi(), alibi, "Press et al. 2022, section 3"),
    "t5": (T5(), t5, "Raffel et al. 2020, section 2.1"),
    "kerple_log": (KerpleLog(), kerple_log, "Chi et al. 2022, KERPLE, logarithmic"),
    "kerple_power": (KerplePower(), kerple_power, "Chi et al. 2022, KERPLE, power"),
    "sandwich": (Sandwich(), sandwich, "Chi et al. 2023, Sandwich"),
    "fire": (FIRE(), fire, "Li et al. 2024, FIRE"),
    "distance": (DistanceFunction(), logarithm, "the function itself, -ln(1 + distance)"),
}


every_case = pytest.mark.parametrize(("scheme", "formula"), cases("position", CASES))


def learned(scheme: PositionScheme) -> dict:
    """c and the threshold of FIRE where training has them, all else anywhere."""
    specs = scheme.layer_parameters(HEADS, 8)
    near = {"c": jnp.asarray(-0.17), "multiplier": jnp.asarray(1.3)}
    return {name: near.get(name, random(*spec.shape, seed=i)) for i, (name, spec) in enumerate(specs.items())}


def bias_by_formula(formula, parameters, position: np.ndarray) -> np.ndarray:
    """float64 [H, L, L]; distances of later keys are 0, as nobody sees them."""
    exact = {name: np.asarray(value, np.float64) for name, value in parameters.items()}
    distance = np.maximum(position[:, None] - position[None, :], 0).astype(np.float64)
    return formula(exact, distance, position.astype(np.float64), HEADS)


@every_case
def test_bias(conforms, scheme, formula):
    tokens, q = tokens_at([POSITIONS]), jnp.zeros((1, HEADS, len(POSITIONS), 8))
    none = jnp.zeros((1, HEADS, len(POSITIONS), len(POSITIONS)))
    change = compiled(lambda parameters: scheme.change_logits(parameters, none, Tile(q, q, tokens, tokens)))
    got = np.asarray(change(learned(scheme)), np.float64)[0]
    wanted = bias_by_formula(formula, learned(scheme), POSITIONS)
    seen = np.tril(np.ones(wanted.shape[1:], bool))
    assert np.abs(wanted[:, seen]).max() > 0.5
    # Each number by itself, but for FIRE, whose hidden units of either sign may cancel: there by the head's largest.
    for head_got, head_wanted in zip(got[:, seen], wanted[:, seen], strict=True):
        conforms(head_got, head_wanted, tolerance=1e-6, each=not isinstance(scheme, FIRE))


def attention_by_formula(q, k, v, bias_HxLxL) -> np.ndarray:
    """softmax(q·k + bias)·v over earlier keys, float64 [H, L, K]."""
    groups = q.shape[0] // k.shape[0]
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    logits = q @ np.repeat(k, groups, axis=0).transpose(0, 2, 1) + bias_HxLxL
    logits = np.where(np.tril(np.ones(logits.shape[1:], bool)), logits, -np.inf)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True) @ np.repeat(v, groups, axis=0)


@every_case
@pytest.mark.parametrize("attention", [reference_attention, blockwise_attention])
def test_attention_output(conforms, scheme, formula, attention):
    position = np.arange(45)
    q, k, v = (random(1, heads, 45, 8, seed=i) for i, heads in enumerate((HEADS, 2, 2)))
    tokens, rule = tokens_at([position]), AttentionRule(scheme, Full())
    got = compiled(functools.partial(attention, rule))(learned(scheme), q, k, v, tokens, tokens)[0]
    wanted = attention_by_formula(q[0], k[0], v[0], bias_by_formula(formula, learned(scheme), position))
    conforms(got, wanted, tolerance=1e-5)


TEMPERATURES: dict[str, tuple[Temperature, object, str]] = {
    "constant": (Constant(1.7), lambda m: 1.7, "the number itself"),
    "yarn": (YaRNTemperature(8.0), lambda m: (0.1 * math.log(8) + 1) ** 2, "Peng et al. 2023, section 3.4"),
    "log_n": (LogN(512), lambda m: max(1.0, math.log(m + 1) / math.log(512)), "Su 2021 and Qwen 2023: max(1, log_L n)"),
    "scalable_softmax": (ScalableSoftmax(512), lambda m: 0.7 * math.log(m + 1), "Nakanishi 2025, Scalable-Softmax"),
    "llama4": (
        Llama4Temperature(),
        lambda m: 1 + 0.1 * math.log(1 + (m + 1) // 8192),
        "Llama 4's formula of attn_scale and floor_scale",
    ),
    "drope": (DroPETemperature(4.0, 0.103), lambda m: 1 + 0.103 * math.log(4), "Gelberg et al. 2025, section 5"),
}


@pytest.mark.parametrize(("temperature", "formula"), cases("temperature", TEMPERATURES))
def test_temperature(conforms, temperature, formula):
    position = [*POSITIONS.tolist(), 8191, 8192, 16382]
    parameters = {name: jnp.full(spec.shape, 0.7) for name, spec in temperature.parameters(2).items()}
    got = np.asarray(temperature.scale(parameters, jnp.asarray([position])))[0]
    wanted = np.array([[formula(m)] * got.shape[1] for m in position])
    conforms(got, wanted, tolerance=1e-6, each=True)


@pytest.mark.conformance("position alibi", reference="transformers BLOOM, live")
def test_alibi_of_bloom(conforms):
    torch = pytest.importorskip("torch")
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    # Its bias grows with the key's position in place of falling with the distance, which softmax does not notice.
    theirs = bloom.build_alibi_tensor(torch.ones(1, 40), HEADS, torch.float32).numpy()
    ours = bias_by_formula(alibi, {}, np.arange(40))[:, -1]
    conforms(theirs[:, 0] - theirs[:, 0, -1:], ours, tolerance=1e-6, each=True)


@pytest.mark.conformance("position t5", reference="transformers T5, live")
def test_bias_of_t5(conforms):
    torch = pytest.importorskip("torch")
    t5_model = pytest.importorskip("transformers.models.t5.modeling_t5")
    config = t5_model.T5Config(d_model=12, num_heads=HEADS, d_kv=2, is_decoder=True)
    theirs = t5_model.T5Attention(config, has_relative_attention_bias=True)
    table = np.array(random(32, HEADS))
    theirs.relative_attention_bias.weight.data = torch.tensor(table)
    wanted = theirs.compute_bias(300, 300).detach().numpy()[0]
    tokens, q = tokens_at([np.arange(300)]), jnp.zeros((1, HEADS, 300, 2))
    got = T5().change_logits({"bias": jnp.asarray(table)}, jnp.zeros((1, HEADS, 300, 300)), Tile(q, q, tokens, tokens))
    seen = np.tril(np.ones((300, 300), bool))
    conforms(np.asarray(got)[0][:, seen], wanted[:, seen], tolerance=0)


@pytest.mark.conformance("temperature llama4", reference="transformers Llama 4, a layer without positions, live")
def test_attention_of_llama_4_on_a_layer_without_positions(conforms):
    torch = pytest.importorskip("torch")
    llama4 = pytest.importorskip("transformers.models.llama4.modeling_llama4")
    length, size = 30, 4
    config = llama4.Llama4TextConfig(
        hidden_size=12,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=size,
        num_hidden_layers=1,
        no_rope_layers=[0],
        attn_temperature_tuning=True,
        floor_scale=4,
        attn_scale=0.5,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    layer = llama4.Llama4TextAttention(config, 0)
    for matrix in (layer.q_proj, layer.k_proj, layer.v_proj):
        matrix.weight.data = torch.randn(matrix.weight.shape)
    layer.o_proj.weight.data = torch.eye(12, 16)
    x = torch.randn(1, length, 12)
    mask = torch.full((length, length), -torch.inf).triu(1)[None, None]
    with torch.no_grad():
        wanted = layer(x, (None, None), mask)[0].numpy()
        projected = (
            matrix(x).view(1, length, -1, size).numpy() for matrix in (layer.q_proj, layer.k_proj, layer.v_proj)
        )
        q, k, v = map(jnp.asarray, projected)
    temperature = Llama4Temperature(strength=0.5, floor_length=4)
    position = jnp.arange(length)[None]
    q = q * temperature.scale({}, position)[..., None] / math.sqrt(size)
    tokens, rule = tokens_at(position), AttentionRule(PositionScheme.registry["none"](), Full())
    output = reference_attention(rule, {}, *(jnp.swapaxes(a, 1, 2) for a in (q, k, v)), tokens, tokens)
    got = jnp.swapaxes(output, 1, 2).reshape(1, length, 16)[..., :12]
    conforms(got, wanted, tolerance=1e-5)


def test_every_field_of_the_formulas_is_the_default():
    """The formulas above hold the papers' constants; a changed default would otherwise go unnoticed only here."""
    defaults = {
        T5: {"buckets": 32, "max_distance": 128},
        FIRE: {"hidden": 32, "threshold": 512},
        Sandwich: {"dimensions": 128},
        Llama4Temperature: {"strength": 0.1, "floor_length": 8192},
    }
    for cls, fields in defaults.items():
        assert {name: getattr(cls(), name) for name in fields} == fields

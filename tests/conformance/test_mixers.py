"""Outputs of one layer under every mixer against the papers' formulas in float64, pair by pair."""

import numpy as np
import pytest

from models.mixers import LatentMixer, LinearMixer, SoftmaxMixer
from models.positions import ALiBi, NoPosition, Rotary, YaRN
from models.positions.index import Clipped
from tests.conformance.layer import (
    CAUSAL,
    GROUPS,
    HEADS,
    KEY,
    LENGTH,
    QUERY,
    SIZE,
    WIDTH,
    alibi,
    by_definition,
    by_module,
    dot_products,
    plain,
    turned,
)
from tests.conformance.layer import weights as softmax_weights
from tests.conformance.rows import cases
from tests.models.samples import random

TOLERANCE = 1e-5
EPSILON = 1e-6
CAP = 0.5
SCALES = {"query_norm": {"scale": 1 + 0.3 * random(SIZE, seed=11)}, "key_norm": {"scale": random(SIZE, seed=12)}}
BIASES = {"query_norm": {"bias": random(SIZE, seed=13)}, "key_norm": {"bias": random(SIZE, seed=14)}}
SINK = random(HEADS, seed=15)


def float64(x) -> np.ndarray:
    return np.asarray(x, np.float64)


def rms(x, scale, bias=None):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * float64(scale)


def layer_norm(x, scale, bias):
    centred = x - x.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
    return normed * float64(scale) + float64(bias)


def normed(norm):
    """Scores of vectors that were normalized before they were turned."""

    def scores(q, k):
        q, k = (
            norm(x, SCALES[name]["scale"], BIASES[name]["bias"]) for x, name in ((q, "query_norm"), (k, "key_norm"))
        )
        return turned(plain())(q, k)

    return scores


def capped(q, k):
    return CAP * np.tanh(dot_products(q, k) / np.sqrt(SIZE) / CAP)


SOFTMAX = {
    "softmax": (SoftmaxMixer(), Rotary(), {}, {"scores": turned(plain())}, "Vaswani et al. 2017, section 3.2"),
    "softmax rms": (
        SoftmaxMixer(query_key_norm="rms"),
        Rotary(),
        SCALES,
        {"scores": normed(rms)},
        "Dehghani et al. 2023, section 2; norms before rotation as in Qwen3",
    ),
    "softmax layer": (
        SoftmaxMixer(query_key_norm="layer"),
        Rotary(),
        {name: SCALES[name] | BIASES[name] for name in SCALES},
        {"scores": normed(layer_norm)},
        "Dehghani et al. 2023, section 2; norms before rotation as in Qwen3",
    ),
    "softmax sink": (
        SoftmaxMixer(sink="learned"),
        ALiBi(),
        {"sink": SINK},
        {"bias": alibi(), "sink": float64(SINK)[:, None, None]},
        "gpt-oss, 2025: a learned logit per head in the denominator",
    ),
    "softmax cap": (
        SoftmaxMixer(soft_cap=CAP),
        ALiBi(),
        {},
        {"scores": capped, "divisor": 1.0, "bias": alibi()},
        "Gemma 2, 2024, section 2: the cap of scores",
    ),
}


@pytest.mark.parametrize(("mixer", "scheme", "more", "definition"), cases("mixer", SOFTMAX))
def test_softmax(conforms, mixer, scheme, more, definition):
    conforms(by_module(scheme, mixer=mixer, **more), by_definition(**definition), TOLERANCE)


def inputs() -> np.ndarray:
    return float64(random(1, LENGTH, WIDTH, seed=4)[0])


def softmax_of(logits: np.ndarray) -> np.ndarray:
    share = np.exp(np.where(CAUSAL, logits, -np.inf) - np.where(CAUSAL, logits, -np.inf).max(-1, keepdims=True))
    return share / share.sum(-1, keepdims=True)


RANK, ROTATED, VALUE = 5, 4, 3


def latent_weights(query_rank: int) -> dict:
    """Parameters of a latent layer."""
    shapes = {
        "latent": (WIDTH, RANK),
        "rotary_key": (WIDTH, 1, ROTATED),
        "query": (query_rank or WIDTH, HEADS, ROTATED + SIZE),
        "key": (RANK, HEADS, SIZE),
        "value": (RANK, HEADS, VALUE),
        "output": (HEADS, VALUE, WIDTH),
    }
    if query_rank:
        shapes["query_latent"] = (WIDTH, query_rank)
    found: dict = {name: {"kernel": random(*shape, seed=i) / 2} for i, (name, shape) in enumerate(shapes.items())}
    found["latent_norm"] = {"scale": 1 + 0.3 * random(RANK, seed=11)}
    if query_rank:
        found["query_latent_norm"] = {"scale": 1 + 0.3 * random(query_rank, seed=12)}
    return found


def latent_by_definition(query_rank: int, scores, bias=0.0) -> np.ndarray:
    """DeepSeek-V2, equations 9 to 19, with every head's keys and values written out, float64 [LENGTH, WIDTH]."""
    parameters = latent_weights(query_rank)
    kernel = {name: float64(part["kernel"]) for name, part in parameters.items() if "kernel" in part}
    x = inputs()
    c = rms(x @ kernel["latent"], parameters["latent_norm"]["scale"])
    asking = x
    if query_rank:
        asking = rms(x @ kernel["query_latent"], parameters["query_latent_norm"]["scale"])
    q, k, v = (np.einsum("lc,chk->hlk", of, kernel[name]) for of, name in ((asking, "query"), (c, "key"), (c, "value")))
    shared = np.broadcast_to(x @ kernel["rotary_key"][:, 0], (HEADS, LENGTH, ROTATED))
    logits = (scores(q[..., :ROTATED], shared) + dot_products(q[..., ROTATED:], k)) / np.sqrt(ROTATED + SIZE)
    return np.einsum("hmn,hnv,hvd->md", softmax_of(logits + bias), v, kernel["output"])


LATENT = {
    "latent": (Rotary(), 0, turned(plain(ROTATED)), 0.0, "DeepSeek-V2, section 2.1, written out"),
    "latent query_rank": (Rotary(), 7, turned(plain(ROTATED)), 0.0, "DeepSeek-V2, section 2.1, written out"),
    "latent alibi": (ALiBi(), 0, dot_products, alibi(), "DeepSeek-V2, section 2.1, written out"),
    "latent clipped": (
        Rotary(index=Clipped(7)),
        0,
        turned(plain(ROTATED), np.minimum(QUERY - KEY, 7)),
        0.0,
        "DeepSeek-V2, section 2.1, written out",
    ),
}


@pytest.mark.parametrize(("scheme", "query_rank", "scores", "bias"), cases("mixer", LATENT))
def test_latent(conforms, scheme, query_rank, scores, bias):
    mixer = LatentMixer(rank=RANK, query_rank=query_rank, rotary_size=ROTATED, value_size=VALUE)
    got = by_module(scheme, mixer=mixer, parameters=latent_weights(query_rank))
    conforms(got, latent_by_definition(query_rank, scores, bias), TOLERANCE)


def linear_by_definition(feature_map, scores) -> np.ndarray:
    """Katharopoulos et al. 2020, equation 9, all pairs at once; RoFormer's equation 19 where scores turn features."""
    kernel = {name: float64(part["kernel"]) for name, part in softmax_weights().items()}
    q, k, v = (np.einsum("ld,dhk->hlk", inputs(), kernel[name]) for name in ("query", "key", "value"))
    k, v = (np.repeat(one, HEADS // GROUPS, axis=0) for one in (k, v))
    q, k = feature_map(q), feature_map(k)
    above, below = np.where(CAUSAL, scores(q, k), 0), np.where(CAUSAL, dot_products(q, k), 0)
    total = below.sum(-1, keepdims=True)
    share = above / np.where(total == 0, 1, total)  # features that have nothing in common
    return np.einsum("hmn,hnk,hkd->md", share, v, kernel["output"])


def elu_plus_1(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0))) + 1


YARN = Rotary(scaling=YaRN(factor=8.0, original_length=9), share=0.5)
LINEAR = {
    "linear": ("elu_plus_1", NoPosition(), elu_plus_1, dot_products, "Katharopoulos et al. 2020, equation 9"),
    "linear rope": ("elu_plus_1", Rotary(), elu_plus_1, turned(plain()), "Su et al. 2021, RoFormer, equation 19"),
    "linear rope partial yarn": (
        "elu_plus_1",
        YARN,
        elu_plus_1,
        turned(YARN.frequencies(SIZE)),
        "RoFormer, equation 19: rotations alone, no attention factor",
    ),
    "linear relu": ("relu", NoPosition(), lambda x: np.maximum(x, 0), dot_products, "the quadratic form of ReLU"),
}


@pytest.mark.parametrize(("name", "scheme", "feature_map", "scores"), cases("mixer", LINEAR))
@pytest.mark.parametrize("chunk", [7, 64])
def test_linear(conforms, chunk, name, scheme, feature_map, scores):
    """In six chunks, the last of which is not whole, and at once."""
    got = by_module(scheme, mixer=LinearMixer(feature_map=name, chunk=chunk))
    conforms(got, linear_by_definition(feature_map, scores), TOLERANCE)

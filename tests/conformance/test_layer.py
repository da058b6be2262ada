"""Outputs of one layer of attention against the papers' formulas in float64: under every index transform, temperature
and span, and of the schemes that turn vectors or do nothing."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention import Full, Sliding
from models.attention.visibility import (
    And,
    BlockSparse,
    Chunked,
    Dilated,
    GlobalTokens,
    Or,
    Prefix,
    Sinks,
    Strided,
    Visibility,
)
from models.mixers import SoftmaxMixer
from models.positions import ALiBi, NoPosition, Rotary, XPos
from models.positions.cope import CoPE
from models.positions.deberta import DeBERTa
from models.positions.index import (
    Clipped,
    DualChunk,
    Grouped,
    Identity,
    Index,
    Interpolated,
    LeakyClipped,
    Randomized,
    Reindexed,
    Shifted,
)
from models.positions.temperature import (
    Constant,
    DroPETemperature,
    Llama4Temperature,
    LogN,
    NoTemperature,
    ScalableSoftmax,
    Temperature,
    YaRNTemperature,
)
from tests.conformance.layer import (
    HEADS,
    KEY,
    LENGTH,
    QUERY,
    SIZE,
    alibi,
    by_definition,
    by_module,
    dot_products,
    parameters_of,
    plain,
    turned,
)
from tests.conformance.rows import cases
from tests.models.samples import random

TOLERANCE = 1e-5


# Distances.


def grouped(window: int, group: int) -> np.ndarray:
    """Self-Extend, section 3: floored positions, the query's moved so that both ranges meet at the window."""
    floored_query, floored_key = np.arange(LENGTH) // group + window - window // group, np.arange(LENGTH) // group
    return np.where(window > QUERY - KEY, QUERY - KEY, floored_query[:, None] - floored_key)


def dual_chunk(length: int, local: int) -> np.ndarray:
    """An et al., section 3: lists of positions that repeat with every chunk."""
    chunk = length - local
    keys = [*range(chunk)]
    successive = [*range(chunk, chunk + local), *[length - 1] * chunk][:chunk]
    distance = np.zeros((LENGTH, LENGTH))
    for m, n in np.ndindex(LENGTH, LENGTH):
        behind, at = m // chunk - n // chunk, m % chunk
        query = keys[at] if behind == 0 else successive[at] if behind == 1 else length - 1
        distance[m, n] = query - keys[n % chunk]
    return distance


def in_cache(window: int, sinks: int) -> np.ndarray:
    """StreamingLLM, section 3.2: places in a cache from which the oldest token after the sinks goes."""
    distance, cache = np.zeros((LENGTH, LENGTH)), []
    for m in range(LENGTH):
        cache.append(m)
        if len(cache) > sinks + window:
            del cache[sinks]
        for place, n in enumerate(cache):
            distance[m, n] = len(cache) - 1 - place
    return distance


FARTHER = QUERY - KEY - 7
DISTANCES: dict[str, tuple[Index, Visibility, np.ndarray, str]] = {
    "identity": (Identity(), Full(), QUERY - KEY, "the difference of two positions"),
    "interpolated": (Interpolated(2.5), Full(), (QUERY - KEY) / 2.5, "Chen et al. 2023, section 2.3"),
    "clipped": (Clipped(7), Full(), np.minimum(QUERY - KEY, 7), "Su 2023, ReRoPE"),
    "clipped under sinks": (
        Clipped(12),
        Sinks(window=9, sinks=3),
        np.minimum(QUERY - KEY, 12),
        "Han et al. 2023, LM-Infinite, section 4",
    ),
    "leaky_clipped": (
        LeakyClipped(7, 3.0),
        Full(),
        np.where(FARTHER < 0, QUERY - KEY, 7 + FARTHER / 3.0),
        "Su 2023, Leaky ReRoPE",
    ),
    "grouped": (Grouped(7, 3), Full(), grouped(7, 3), "Jin et al. 2024, Self-Extend, section 3"),
    "dual_chunk": (DualChunk(14, 3), Full(), dual_chunk(14, 3), "An et al. 2024, DCA, section 3"),
    "reindexed": (
        Reindexed(window=9, sinks=3),
        Sinks(window=9, sinks=3),
        in_cache(9, 3),
        "Xiao et al. 2023, StreamingLLM, section 3.2",
    ),
}


@pytest.mark.parametrize(("index", "span", "distance"), cases("index", DISTANCES))
@pytest.mark.parametrize("scheme", ["rope", "alibi"])
def test_distances(conforms, scheme, index, span, distance):
    seen = SEEN[span.name][1]
    if scheme == "rope":
        wanted = by_definition(turned(plain(), distance), seen=seen)
        conforms(by_module(Rotary(index=index), span), wanted, TOLERANCE)
    else:
        wanted = by_definition(bias=alibi(distance), seen=seen)
        conforms(by_module(ALiBi(index=index), span), wanted, TOLERANCE)


DRAWN = {
    "shifted": (Shifted(maximum=50), "Kiyono et al. 2021, SHAPE, section 3"),
    "randomized": (Randomized(maximum=90), "Ruoss et al. 2023, section 3"),
}


@pytest.mark.parametrize("index", cases("index", DRAWN))
@pytest.mark.parametrize("scheme", ["rope", "alibi"])
def test_distances_of_drawn_positions(conforms, scheme, index):
    drawn = index.draw(jax.random.key(5), jnp.arange(LENGTH)[None], 1, LENGTH, training=True)
    place = np.asarray(drawn[0])
    assert (np.diff(place) > 0).all() and (place != np.arange(LENGTH)).any()
    distance = place[:, None] - place[None, :]
    if scheme == "rope":
        conforms(by_module(Rotary(index=index), drawn=drawn), by_definition(turned(plain(), distance)), TOLERANCE)
    else:
        conforms(by_module(ALiBi(index=index), drawn=drawn), by_definition(bias=alibi(distance)), TOLERANCE)


# What turns vectors, and what does nothing.


def proportional(share: float) -> np.ndarray:
    """Barbero et al.: the lowest frequencies of a head become 0."""
    frequencies = plain()
    frequencies[int(share * SIZE / 2) :] = 0
    return frequencies


SCORES = {
    "none": (NoPosition(), dot_products, "Kazemnejad et al. 2023: scores of content alone"),
    "rope half_split": (Rotary(), turned(plain()), "Su et al. 2021, equation 15, pairs of halves"),
    "rope interleaved": (
        Rotary(layout="interleaved", base=500.0),
        turned(plain(base=500.0), layout="interleaved"),
        "Su et al. 2021, equation 15",
    ),
    "rope partial": (Rotary(share=0.5), turned(plain(SIZE // 2)), "Black et al. 2022, section 2.1"),
    "rope proportional": (
        Rotary(share=0.5, share_rule="proportional"),
        turned(proportional(0.5)),
        "Barbero et al. 2024, section 6",
    ),
}


@pytest.mark.parametrize(("scheme", "scores"), cases("position", SCORES))
def test_scores(conforms, scheme, scores):
    conforms(by_module(scheme), by_definition(scores), TOLERANCE)


@pytest.mark.conformance("position xpos", reference="Sun et al. 2022, section 2.2")
@pytest.mark.parametrize("layout", ["half_split", "interleaved"])
def test_xpos(conforms, layout):
    """Each pair's part of a score decays by itself, so they are summed one by one."""
    scale_base, decays = 16.0, [(2 * i + 0.4 * SIZE) / (1.4 * SIZE) for i in range(SIZE // 2)]

    def scores(q, k):
        total = np.zeros((len(q), LENGTH, LENGTH))
        for i, (frequency, decay) in enumerate(zip(plain(), decays, strict=True)):
            pair = [i, i + SIZE // 2] if layout == "half_split" else [2 * i, 2 * i + 1]
            part = turned([frequency])(q[..., pair], k[..., pair])
            total += part * decay ** (np.maximum(QUERY - KEY, 0) / scale_base)
        return total

    conforms(by_module(XPos(layout=layout, scale_base=scale_base)), by_definition(scores), TOLERANCE)


# Temperatures.

VISIBLE = QUERY + 1  # how many tokens a query has in its document, itself included
TEMPERATURES: dict[str, tuple[Temperature, object, str]] = {
    "none": (NoTemperature(), 1.0, "Vaswani et al. 2017, equation 1"),
    "constant": (Constant(1.7), 1.7, "the number itself"),
    "yarn": (YaRNTemperature(8.0), (0.1 * math.log(8) + 1) ** 2, "Peng et al. 2023, section 3.4"),
    "log_n": (LogN(9), np.maximum(1, np.log(VISIBLE) / np.log(9)), "Su 2021 and Qwen 2023: max(1, log_L n)"),
    "scalable_softmax": (ScalableSoftmax(9), 0.7 * np.log(VISIBLE), "Nakanishi 2025, Scalable-Softmax"),
    "llama4": (
        Llama4Temperature(strength=0.5, floor_length=8),
        1 + 0.5 * np.log(VISIBLE // 8 + 1),
        "Llama 4's formula of attn_scale and floor_scale",
    ),
    "drope": (DroPETemperature(4.0, 0.103), 1 + 0.103 * math.log(4), "Gelberg et al. 2025, section 5"),
}


@pytest.mark.parametrize(("temperature", "factor"), cases("temperature", TEMPERATURES))
def test_temperatures(conforms, temperature, factor):
    """They multiply scores; a bias is added to the product."""
    learned = {"temperature_s": jnp.full(6, 0.7)} if isinstance(temperature, ScalableSoftmax) else {}
    got = by_module(ALiBi(), temperature=temperature, **learned)
    conforms(got, by_definition(bias=alibi(), factor=factor), TOLERANCE)


FACTOR = 1.7


@pytest.mark.conformance("temperature constant", reference="q times the factor, wherever q stands (deberta)")
def test_a_temperature_multiplies_products_with_the_query_alone(conforms):
    scheme = DeBERTa(max_distance=5, buckets=None)
    tables = parameters_of(scheme.layer_parameters(HEADS, SIZE))
    kr, qr = (np.asarray(tables[name], np.float64) for name in ("key", "query"))
    row = np.clip(QUERY - KEY, 0, 4)

    def scores(q, k):
        of_query = dot_products(q, k) + np.einsum("hmk,mnhk->hmn", q, kr[row])
        return FACTOR * of_query + np.einsum("hnk,mnhk->hmn", k, qr[row])

    learned = {f"position_{name}": value for name, value in tables.items()}
    wanted = by_definition(scores, divisor=np.sqrt(3 * SIZE))
    conforms(by_module(scheme, temperature=Constant(FACTOR), **learned), wanted, TOLERANCE)


@pytest.mark.conformance("temperature constant", reference="q times the factor, wherever q stands (cope)")
def test_a_temperature_changes_gates_too(conforms):
    scheme = CoPE(max_position=6)
    tables = parameters_of(scheme.layer_parameters(HEADS, SIZE))
    e = np.asarray(tables["embedding"], np.float64)

    def scores(q, k):
        logits = FACTOR * dot_products(q, k) / np.sqrt(SIZE)
        gates = np.where(QUERY >= KEY, 1 / (1 + np.exp(-logits)), 0)
        position = np.minimum(np.flip(np.flip(gates, -1).cumsum(-1), -1), 6)
        at_integers = FACTOR * q @ e.T
        low = np.floor(position).astype(int)
        below, above = (np.take_along_axis(at_integers, at, -1) for at in (low, np.minimum(low + 1, 6)))
        return logits + below + (position - low) * (above - below)

    wanted = by_definition(scores, divisor=1.0)
    got = by_module(scheme, temperature=Constant(FACTOR), position_embedding=tables["embedding"])
    conforms(got, wanted, TOLERANCE)


@pytest.mark.conformance("temperature scalable_softmax", reference="a first factor of 0 beside a sink")
def test_a_factor_of_0_leaves_the_first_token_what_the_sink_does_not_take(conforms):
    sink = random(HEADS, seed=15)
    got = by_module(
        NoPosition(),
        temperature=ScalableSoftmax(9),
        mixer=SoftmaxMixer(sink="learned"),
        temperature_s=jnp.full(HEADS, 0.7),
        sink=sink,
    )
    first = np.asarray(sink, np.float64)[:, None, None]
    conforms(got, by_definition(factor=0.7 * np.log(VISIBLE), sink=first), TOLERANCE)


# Spans.

BACK = QUERY - KEY
FIXED = (QUERY // 8 == KEY // 8) | (KEY % 8 >= 5)
SEEN: dict[str, tuple[Visibility, np.ndarray, str]] = {
    "full": (Full(), BACK >= 0, "Vaswani et al. 2017, section 3.2.3"),
    "sliding": (Sliding(6), (BACK >= 0) & (BACK < 6), "Jiang et al. 2023, Mistral 7B, section 2"),
    "sinks": (
        Sinks(window=9, sinks=3),
        (BACK >= 0) & ((BACK < 9) | (KEY < 3)),
        "Xiao et al. 2023, StreamingLLM, section 3.2",
    ),
    "dilated": (
        Dilated(window=4, dilation=3),
        np.isin(BACK, [0, 3, 6, 9]),
        "Beltagy et al. 2020, Longformer, section 3.1",
    ),
    "strided": (
        Strided(7),
        (BACK >= 0) & ((BACK <= 7) | (BACK % 7 == 0)),
        "Child et al. 2019, strided",
    ),
    "block_sparse": (BlockSparse(block=8, columns=3), (BACK >= 0) & FIXED, "Child et al. 2019, fixed"),
    "global_tokens": (
        GlobalTokens(3),
        (BACK == 0) | ((BACK > 0) & (KEY < 3)),
        "Beltagy et al. 2020, Longformer, section 3.1",
    ),
    "chunked": (Chunked(9), (BACK >= 0) & (QUERY // 9 == KEY // 9), "Llama 4's chunks, by definition"),
    "prefix": (Prefix(6), (BACK >= 0) | (KEY < 6), "Raffel et al. 2020, section 3.2.1"),
    "and": (
        And((Sliding(6), Chunked(9))),
        (BACK >= 0) & (BACK < 6) & (QUERY // 9 == KEY // 9),
        "the intersection of two masks",
    ),
    "or": (
        Or((Sliding(6), GlobalTokens(3))),
        (BACK >= 0) & ((BACK < 6) | (KEY < 3)),
        "the union of two masks (Longformer, figure 2d)",
    ),
}


@pytest.mark.parametrize(("span", "seen"), cases("span", SEEN))
def test_spans(conforms, span, seen):
    conforms(by_module(Rotary(), span), by_definition(turned(plain()), seen=seen), TOLERANCE)

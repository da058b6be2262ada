"""Content-dependent schemes against their papers' formulas, written again in float64, and against transformers."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from models.attention import AttentionRule, Sliding, reference_attention
from models.positions import PositionScheme, Tokens
from models.positions.cope import CoPE
from models.positions.deberta import DeBERTa
from models.positions.forgetting import Forgetting
from models.positions.scheme import Tile
from models.positions.shaw import Shaw
from tests.models.samples import compiled, random, tokens_at

ROWS, HEADS, GROUPS, LENGTH, SIZE, WINDOW = 2, 4, 2, 14, 8, 11
POSITION = np.tile(np.r_[:9, :5], (ROWS, 1))
DOCUMENT = np.array([[0] * 9 + [1] * 5, [0] * 9 + [-1] * 5])


def softmax(logits: list[float]) -> np.ndarray:
    weights = np.exp(np.array(logits) - max(logits))
    return weights / weights.sum()


def by_formula(logit, q, k, v, value=lambda m, n: 0.0) -> np.ndarray:
    """Σ_n softmax_n(logit)·(v_n + value(m, n)) pair by pair, float64 [ROWS, HEADS, LENGTH, SIZE].

    `logit(row, head, m, seen)` returns the logits of the keys `seen`, which are in order; vectors are float64.
    """
    output = np.zeros((ROWS, HEADS, LENGTH, SIZE))
    for row, head, m in np.ndindex(ROWS, HEADS, LENGTH):
        seen = [
            n
            for n in range(m + 1)
            if DOCUMENT[row, n] == DOCUMENT[row, m] >= 0 and POSITION[row, m] - POSITION[row, n] < WINDOW
        ]
        if seen:
            weights = softmax(logit(row, head, m, seen))
            values = [v[row, head // 2, n] + value(m, n) for n in seen]
            output[row, head, m] = weights @ np.array(values)
    return output


def vectors():
    """q, k and v as the model makes them, before any scaling, and in float64."""
    arrays = [random(ROWS, heads, LENGTH, SIZE, seed=i) for i, heads in enumerate((HEADS, GROUPS, GROUPS))]
    return arrays, [np.asarray(x, np.float64) for x in arrays]


def learned(specs) -> tuple[dict, dict]:
    """Random numbers in place of fresh ones; and in float64."""
    arrays = {name: random(*spec.shape, seed=7 + i) for i, (name, spec) in enumerate(specs.items())}
    return arrays, {name: np.asarray(x, np.float64) for name, x in arrays.items()}


@functools.partial(compiled, static_argnums=0)
def attention(scheme: PositionScheme, parameters, q, k, v, gate_numbers=None, x=None):
    tokens = tokens_at(POSITION, DOCUMENT)
    if x is not None:
        before = {name: jnp.zeros((ROWS, *shape)) for name, shape in scheme.feature_shapes(HEADS).items()}
        tokens = tokens.replace(features=scheme.features(gate_numbers, x, tokens, before))
    rule = AttentionRule(scheme, Sliding(WINDOW))
    return reference_attention(rule, parameters, q / np.float32(np.sqrt(SIZE)), k, v, tokens, tokens)


@pytest.mark.conformance("position shaw", reference="Shaw et al. 2018, equations 3 and 4")
def test_shaw(conforms):
    """Equations 3 and 4, with the paper's own order of distances, n - m."""
    (q, k, v), (q64, k64, v64) = vectors()
    scheme = Shaw(max_distance=3)
    parameters, tables = learned(scheme.layer_parameters(HEADS, SIZE))

    def row(m, n):
        clipped = max(-3, min(3, n - m))
        return -clipped  # causal tables hold w_0, w_-1, … w_-3

    def logit(b, h, m, seen):
        return [q64[b, h, m] @ (k64[b, h // 2, n] + tables["key"][row(m, n)]) / np.sqrt(SIZE) for n in seen]

    wanted = by_formula(logit, q64, k64, v64, value=lambda m, n: tables["value"][row(m, n)])
    conforms(attention(scheme, parameters, q, k, v), wanted, tolerance=1e-5)


@pytest.mark.conformance("position deberta", reference="He et al. 2021, equation 4")
@pytest.mark.parametrize("scheme", [DeBERTa(max_distance=4, buckets=None), DeBERTa(max_distance=10, buckets=6)])
def test_deberta(conforms, scheme):
    """Equation 4; δ is the paper's equation 3 (version 1), or the golden values' rule (version 2)."""
    (q, k, v), (q64, k64, v64) = vectors()
    parameters, tables = learned(scheme.layer_parameters(HEADS, SIZE))
    assert len(tables["key"]) == (scheme.buckets or scheme.max_distance)

    def row(m, n):
        k_max = scheme.max_distance
        if scheme.buckets is None:
            delta = 0 if m - n <= -k_max else 2 * k_max - 1 if m - n >= k_max else m - n + k_max
            return delta - k_max  # without the rows of later keys
        mid = scheme.buckets // 2
        if m - n <= mid:
            return m - n
        return min(int(np.ceil(np.log((m - n) / mid) / np.log((k_max - 1) / mid) * (mid - 1))) + mid, 2 * mid - 1)

    def logit(b, h, m, seen):
        found = []
        for n in seen:
            query, key, r = q64[b, h, m], k64[b, h // 2, n], row(m, n)
            terms = query @ key + query @ tables["key"][r, h] + key @ tables["query"][r, h]
            found.append(terms / np.sqrt(3 * SIZE))
        return found

    conforms(attention(scheme, parameters, q, k, v), by_formula(logit, q64, k64, v64), tolerance=1e-5)


@pytest.mark.conformance("position cope", reference="Golovneva et al. 2024, section 4, and its listing")
@pytest.mark.parametrize("max_position", [2, 5])
def test_cope(conforms, max_position):
    """Section 4, with the listing's factors: gates of scaled scores, e met by the unscaled query."""
    (q, k, v), (q64, k64, v64) = vectors()
    scheme = CoPE(max_position=max_position)
    parameters, tables = learned(scheme.layer_parameters(HEADS, SIZE))
    e, positions = tables["embedding"], []

    def logit(b, h, m, seen):
        scores = [q64[b, h, m] @ k64[b, h // 2, n] / np.sqrt(SIZE) for n in seen]
        found = []
        for i, score in enumerate(scores):
            p = min(sum(1 / (1 + np.exp(-later)) for later in scores[i:]), max_position)
            low, high = int(np.floor(p)), int(np.ceil(p))
            embedding = (p - low) * e[high] + (1 - p + low) * e[low]
            found.append(score + q64[b, h, m] @ embedding)
            positions.append(p)
        return found

    wanted = by_formula(logit, q64, k64, v64)
    assert min(positions) < 1 and max(positions) == max_position
    conforms(attention(scheme, parameters, q, k, v), wanted, tolerance=1e-5)


@pytest.mark.conformance("position forgetting", reference="Lin et al. 2025, Forgetting Transformer, section 3")
def test_forgetting(conforms):
    """The sum of the log gates after the key, up to the query's own."""
    (q, k, v), (q64, k64, v64) = vectors()
    scheme, x = Forgetting(), random(ROWS, LENGTH, 6, seed=4)
    parameters, numbers = learned(scheme.feature_parameters(6, HEADS))
    log_gate = -np.log1p(np.exp(-(np.asarray(x, np.float64) @ numbers["gate"] + numbers["gate_bias"])))

    def logit(b, h, m, seen):
        return [
            q64[b, h, m] @ k64[b, h // 2, n] / np.sqrt(SIZE) + sum(log_gate[b, t, h] for t in range(n + 1, m + 1))
            for n in seen
        ]

    conforms(attention(scheme, {}, q, k, v, parameters, x), by_formula(logit, q64, k64, v64), tolerance=1e-5)


@pytest.mark.conformance("position deberta", reference="transformers DebertaV2, live")
@pytest.mark.parametrize("buckets", [None, 8])
def test_deberta_against_transformers(conforms, buckets):
    """Both terms of position of its version 2, whose tables are the projected embeddings of earlier keys."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention

    length, k_max = 24, 16
    config = transformers.DebertaV2Config(
        hidden_size=HEADS * SIZE,
        num_attention_heads=HEADS,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=buckets or -1,
        max_relative_positions=k_max,
        share_att_key=False,
    )
    torch.manual_seed(0)
    module = DisentangledSelfAttention(config).double()
    span = buckets or k_max
    embeddings = torch.randn(2 * span, HEADS * SIZE, dtype=torch.float64)
    q, k = (random(1, HEADS, length, SIZE, seed=seed) for seed in (0, 1))
    flat = [torch.tensor(np.asarray(x[0], np.float64)) for x in (q, k)]
    with torch.no_grad():
        wanted = module.disentangled_attention_bias(*flat, None, embeddings, scale_factor=3)
        tables = [
            projection(embeddings).view(2 * span, HEADS, SIZE)[span:].numpy()
            for projection in (module.pos_key_proj, module.pos_query_proj)
        ]
    parameters = dict(zip(("key", "query"), (jnp.asarray(x, jnp.float32) for x in tables), strict=True))
    position = jnp.arange(length, dtype=jnp.int32)[None]
    tokens = Tokens(position, jnp.zeros_like(position))
    tile = Tile(q / np.float32(np.sqrt(SIZE)), k, tokens, tokens)
    scheme = DeBERTa(max_distance=k_max, buckets=buckets)
    got = compiled(lambda logits: scheme.change_logits(parameters, logits, tile))(jnp.zeros((1, HEADS, length, length)))
    causal = np.tril(np.ones((length, length)))
    conforms(got[0] * causal, wanted.numpy() * causal, tolerance=1e-6)

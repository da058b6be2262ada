"""Linear attention: weights that are products of features, so that the past is one matrix per head."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from models.attention import Full, visible
from models.errors import invalid, require, require_choice
from models.mixers.attention import AttentionModule
from models.mixers.mixer import Mixer
from models.positions import PositionScheme, Tokens
from models.positions.temperature import NoTemperature

if TYPE_CHECKING:
    from models.config import ModelConfig

Array = jax.Array


def elu_plus_1(x: Array) -> Array:
    """x + 1 above 0, eˣ below: always positive."""
    return jnp.where(x > 0, x + 1, jnp.exp(jnp.minimum(x, 0)))


FEATURE_MAPS: dict[str, Callable[[Array], Array]] = {"elu_plus_1": elu_plus_1, "relu": jax.nn.relu}


@Mixer.registry.register("linear")
@dataclass(frozen=True)
class LinearMixer(Mixer):
    """`Σ_n (φ(q_m)·φ(k_n)) v_n / Σ_n φ(q_m)·φ(k_n)` over the tokens n ≤ m of the document, with features φ of queries
    and keys in the place of a softmax of their product; `kv_heads` as in softmax attention.

    The sums over n are a matrix and a vector per key head, to which each token adds its own: O(L) in all, and decoding
    keeps these sums, in float32, instead of a cache that grows. In training, chunks of tokens are compared pair by pair
    within, and see the sums of all chunks before.

    Positions: those added to embeddings, and rotations, which turn the features in the sum above but not in the sum
    below, whose terms stay positive (Su et al. 2021, "RoFormer", equation 19). There are no logits to change, no keys
    to hide, and a factor on a query's scores cancels: schemes on logits, spans and temperatures are refused, and the
    attention factor of a scaling ("yarn") has no part in it. Beyond the training length nothing is undefined, but the
    sums grow, and each token weighs less in them.

    feature_map: φ, of each number: "elu_plus_1" (the paper's elu(x) + 1) or "relu", under which a query with no key in
      common gets zeros. chunk: tokens per chunk; more cost more arithmetic and fewer steps.
    Source: Katharopoulos et al. (2020), "Transformers are RNNs", sections 3.2 to 3.4; documents of a row must each
      stand in one piece.
    """

    weighs_keys: ClassVar[bool] = False

    feature_map: str = "elu_plus_1"
    chunk: int = 64

    def __post_init__(self):
        require_choice("feature_map", self.feature_map, FEATURE_MAPS)
        require(self.chunk >= 1, "chunk", self.chunk, "at least 1")

    def check(self, config: ModelConfig, index: int) -> None:
        scheme, span, temperature = (
            config.layer_position(index),
            config.layer_span(index),
            config.layer_temperature(index),
        )
        scheme.check(config.head_width)
        if not scheme.plain_logits():
            fit = ", ".join(name for name, cls in PositionScheme.registry.items() if cls().plain_logits())
            allowed = f"one of {fit} under mixer.name = 'linear', with frequencies and distances that no query changes"
            raise invalid("position.name", scheme.name, allowed)
        if not isinstance(span, Full):
            raise invalid("span.name", span.name, "full under mixer.name = 'linear', which forgets no key")
        if not isinstance(temperature, NoTemperature):
            allowed = "none under mixer.name = 'linear', whose weights a factor does not change"
            raise invalid("temperature.name", temperature.name, allowed)

    def module(self, config: ModelConfig, index: int) -> nn.Module:
        return LinearAttention(config, index, self, name="attention")

    def empty(
        self, config: ModelConfig, index: int, leading: tuple[int, ...], batch: int, capacity: int
    ) -> LinearState:
        """Sums of no tokens, which take the same room whatever the capacity."""
        return empty_sums((*leading, batch), config.key_heads, config.head_width, config.head_width)

    def weights(self, config: ModelConfig) -> int:
        return config.width * config.head_width * 2 * (config.heads + config.key_heads)

    def mixing_flops(self, config: ModelConfig, keys: float) -> float:
        """Of the sums of all earlier tokens; what a chunk computes beside them is not counted, nor do `keys` matter."""
        return 2 * config.head_width**2 * (config.heads + config.key_heads)


@flax.struct.dataclass
class LinearState:
    """What linear attention keeps of the tokens so far of one document per row, float32 and int32.

    key_value_BxGxKxV: Σ φ(k) vᵀ, of rotated features. key_BxGxK: Σ φ(k), of plain ones. document_B: whose they are, [B]
    or [1]; -1 where there are none yet.
    """

    key_value_BxGxKxV: Array
    key_BxGxK: Array
    document_B: Array


def empty_sums(rows: tuple[int, ...], groups: int, size: int, value_size: int) -> LinearState:
    """The sums of no tokens."""
    sums = jnp.zeros((*rows, groups, size, value_size), jnp.float32)
    return LinearState(sums, jnp.zeros((*rows, groups, size), jnp.float32), jnp.full(rows, -1, jnp.int32))


def linear_attention(
    features: tuple[Array, Array],
    rotated: tuple[Array, Array],
    v_BxGxLxV: Array,
    tokens: Tokens,
    state: LinearState,
    chunk: int,
) -> tuple[Array, LinearState]:
    """Causal linear attention [B, H, L, V] in the dtype of `v`, and the sums after the last token.

    features: φ of queries [B, H, L, K] and of keys [B, G, L, K]; rotated: those, as positions turn them. A query sees
    the earlier tokens of its document here and, where it is the state's document, those in the state. Queries that see
    nothing (padding) get zeros. Memory is linear in L, forward and backward.
    """
    length = v_BxGxLxV.shape[2]
    rows = max(tokens.document.shape[0], state.document_B.shape[0])
    position, document = (jnp.broadcast_to(x, (rows, length)) for x in (tokens.position, tokens.document))
    state = dataclasses.replace(state, document_B=jnp.broadcast_to(state.document_B, (rows,)))
    vectors = (*features, *rotated, v_BxGxLxV)
    if length <= chunk:
        state, output = _one_chunk(state, (vectors, position, document))
        return output, state

    def split(x: Array, axis: int, padding: int = 0) -> Array:
        widths = [(0, -length % chunk if i == axis else 0) for i in range(x.ndim)]
        padded = jnp.pad(x, widths, constant_values=padding)
        return jnp.moveaxis(padded.reshape(*x.shape[:axis], -1, chunk, *x.shape[axis + 1 :]), axis, 0)

    chunks = (tuple(split(x, 2) for x in vectors), split(position, 1), split(document, 1, -1))
    # Backward computes a chunk again: only the sums between chunks are kept.
    state, output_NxBxHxCxV = jax.lax.scan(jax.checkpoint(_one_chunk), state, chunks)
    output = jnp.moveaxis(output_NxBxHxCxV, 0, 2)
    return output.reshape(*output.shape[:2], -1, output.shape[-1])[:, :, :length], state


def _one_chunk(state: LinearState, chunk) -> tuple[LinearState, Array]:
    """The sums after a chunk of C tokens, and its outputs [B, H, C, V]."""
    (q, k, q_rotated, k_rotated, v), position_BxC, document_BxC = chunk
    groups = k.shape[1]

    def by_group(x_BxHxCxK: Array) -> Array:
        batch, heads, *rest = x_BxHxCxK.shape
        return x_BxHxCxK.reshape(batch, groups, heads // groups, *rest)

    def einsum(formula: str, *factors: Array) -> Array:
        return jnp.einsum(formula, *factors, preferred_element_type=jnp.float32)

    where = Tokens(position_BxC, document_BxC)
    seen_BxCxC = visible(Full(), where, where)
    real_BxC = document_BxC >= 0
    goes_on_BxC = real_BxC & (document_BxC == state.document_B[:, None])
    q, q_rotated = by_group(q), by_group(q_rotated)

    weights = einsum("bgrqk,bgtk->bgrqt", q_rotated, k_rotated) * seen_BxCxC[:, None, None]
    before = einsum("bgrqk,bgkv->bgrqv", q_rotated.astype(jnp.float32), state.key_value_BxGxKxV)
    summed = einsum("bgrqt,bgtv->bgrqv", weights.astype(v.dtype), v) + goes_on_BxC[:, None, None, :, None] * before
    for_all_BxCxC = jnp.broadcast_to(seen_BxCxC, (k.shape[0], *seen_BxCxC.shape[1:]))
    keys = einsum("bqt,bgtk->bgqk", for_all_BxCxC.astype(k.dtype), k)
    keys += goes_on_BxC[:, None, :, None] * state.key_BxGxK[:, :, None]
    total = einsum("bgrqk,bgqk->bgrq", q.astype(jnp.float32), keys)[..., None]
    output = jnp.where(total > 0, summed / jnp.where(total > 0, total, 1.0), 0.0)

    # The state is of the document of the last token that is one, or of the one it was of.
    last_Bx1 = jnp.where(real_BxC, jnp.arange(document_BxC.shape[1]), -1).argmax(axis=1, keepdims=True)
    of_last_B = jnp.take_along_axis(document_BxC, last_Bx1, axis=1)[:, 0]
    document_B = jnp.where(real_BxC.any(axis=1), of_last_B, state.document_B)
    same_B = document_B == state.document_B
    mine_BxC = real_BxC & (document_BxC == document_B[:, None])
    k, k_rotated = (x * mine_BxC[:, None, :, None].astype(x.dtype) for x in (k, k_rotated))
    new = LinearState(
        same_B[:, None, None, None] * state.key_value_BxGxKxV + einsum("bgtk,bgtv->bgkv", k_rotated, v),
        same_B[:, None, None] * state.key_BxGxK + k.astype(jnp.float32).sum(axis=2),
        document_B,
    )
    batch, _, _, length, size = output.shape
    return new, output.reshape(batch, -1, length, size).astype(v.dtype)


class LinearAttention(AttentionModule):
    """Linear attention of one layer: [B, L, D] -> [B, L, D], going on from a state where one is given."""

    mixer: LinearMixer

    @nn.compact
    def __call__(
        self, x_BxLxD: Array, tokens: Tokens, cache: LinearState | None, slots: Tokens | None, start: Array | None
    ) -> tuple[Array, LinearState | None]:
        config, size, dtype = self.config, self.config.head_width, self.config.compute_dtype
        scheme, groups = config.layer_position(self.index), config.key_heads
        position, feature_map = scheme.place(tokens), FEATURE_MAPS[self.mixer.feature_map]

        def features(name: str, heads: int, axis: str) -> Array:
            projected = self.project(name, x_BxLxD, heads, size, axis)
            return feature_map(projected.astype(jnp.float32)).astype(dtype)

        def by_head(x_BxLxHxK: Array) -> Array:
            return jnp.swapaxes(x_BxLxHxK, 1, 2)

        plain = features("query", config.heads, "heads"), features("key", groups, "kv_heads")
        rotated = (
            by_head(scheme.rotate_features(plain[0], position)),
            by_head(scheme.rotate_features(plain[1], position)),
        )
        v = by_head(self.project("value", x_BxLxD, groups, size, "kv_heads", self.gains.inner))
        before = empty_sums((x_BxLxD.shape[0],), groups, size, size) if cache is None else cache
        if cache is None:
            before = dataclasses.replace(before, document_B=before.document_B[:1])
        query, key = (by_head(x) for x in plain)
        output, state = linear_attention((query, key), rotated, v, tokens, before, self.mixer.chunk)
        return self.merged(by_head(output)), None if cache is None else state

"""Attention over tiles with an online softmax: O(L) memory forward and backward, for any scheme and span.

Forward keeps a running maximum and sum per query (Milakov & Gimelshein 2018; Rabe & Staats 2021; Dao et al. 2022,
FlashAttention, algorithm 1); backward recomputes each tile's logits and takes the scheme's own VJP of them, so that a
scheme's learned numbers and per-token features get gradients without a scheme knowing of tiles. Tiles that hold no
visible pair are never visited: for every query tile the live key tiles are listed first, and a loop with a dynamic trip
count walks that list.

A scheme that accumulates over newer keys has its key tiles visited newest first, each leaving a carry [B, H, Q] to the
next. Backward, the cotangent of the carry travels from the oldest tile to the newest, which needs each tile's carry
before those of newer ones are at hand: a first walk per query tile computes them again, exactly as they were, and keeps
them for that query tile alone. Subtracting what each tile added would spare it, but the sums exceed what matters of
them by orders of magnitude, and so would the error. Schemes that accumulate nothing have no carry: it is None, an empty
tree, and leaves no trace in their compiled programs.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from models.attention.rule import MASKED, AttentionRule, tokens_like
from models.attention.visibility import live_tiles, visible
from models.positions.scheme import Tokens

Array = jax.Array


class Tiles(NamedTuple):
    """Tile sizes, in tokens. By default a head's weights in a tile take 128 KiB: caches hold those of several."""

    query: int = 256
    key: int = 128


def blockwise_attention(
    rule: AttentionRule,
    parameters: dict[str, Array],
    q_BxHxLxK: Array,
    k_BxGxSxK: Array,
    v_BxGxSxK: Array,
    query: Tokens,
    key: Tokens,
    tiles: Tiles = Tiles(),
    sink_H: Array | None = None,
) -> Array:
    """The same function as `reference_attention`, at memory linear in L and S, forward and backward.

    Lengths need not divide by the tiles: they are padded with tokens that nobody sees.
    """
    length, keys = q_BxHxLxK.shape[2], k_BxGxSxK.shape[2]
    tiles = Tiles(min(tiles.query, length), min(tiles.key, keys))
    q, query = _pad(q_BxHxLxK, query, -length % tiles.query)
    k, key_padded = _pad(k_BxGxSxK, key, -keys % tiles.key)
    v, _ = _pad(v_BxGxSxK, key, -keys % tiles.key)
    return _attend(rule, tiles, parameters, sink_H, q, k, v, query, key_padded)[:, :, :length]


def _pad(x_BxHxLxK: Array, tokens: Tokens, count: int) -> tuple[Array, Tokens]:
    if count == 0:
        return x_BxHxLxK, tokens
    after = [(0, 0), (0, count)]
    padded = tokens_like(
        tokens,
        position=jnp.pad(tokens.position, after),
        document=jnp.pad(tokens.document, after, constant_values=-1),
        features=jax.tree.map(lambda f: jnp.pad(f, after + [(0, 0)] * (f.ndim - 2)), tokens.features),
        drawn=None if tokens.drawn is None else jnp.pad(tokens.drawn, after),
    )
    return jnp.pad(x_BxHxLxK, [(0, 0), *after, (0, 0)]), padded


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(rule, tiles, parameters, sink, q, k, v, query, key):
    return _forward(rule, tiles, parameters, sink, q, k, v, query, key)[0]


def _forward(rule, tiles, parameters, sink, q, k, v, query, key):
    schedule, count = _schedule(rule, tiles, query, key)
    batch, heads, length, _ = q.shape

    def one_query_tile(i):
        q_tile, query_tile = _slice(q, i, tiles.query), _slice_tokens(query, i, tiles.query)

        def one_key_tile(step, running):
            maximum_BxHxQ, total_BxHxQ, summed_BxHxQxK, carry = running
            j = schedule[i, step]
            k_tile, v_tile = _slice(k, j, tiles.key), _slice(v, j, tiles.key)
            key_tile = _slice_tokens(key, j, tiles.key)
            seen = visible(rule.span, query_tile, key_tile)
            logits, carry = rule.logits(parameters, q_tile, k_tile, query_tile, key_tile, seen, carry)
            logits = jnp.where(seen[:, None], logits, MASKED)
            new_maximum = jnp.maximum(maximum_BxHxQ, logits.max(axis=-1))
            weights = jnp.exp(logits - new_maximum[..., None])
            shrink = jnp.exp(maximum_BxHxQ - new_maximum)
            total = total_BxHxQ * shrink + weights.sum(axis=-1)
            more = rule.weigh(parameters, weights, v_tile, query_tile, key_tile)
            return new_maximum, total, summed_BxHxQxK * shrink[..., None] + more, carry

        rows = (batch, heads, tiles.query)
        if sink is None:
            first = jnp.full(rows, MASKED), jnp.zeros(rows)
        else:  # as after a first key of that logit, whose value is zero
            first = jnp.broadcast_to(sink[:, None], rows), jnp.ones(rows)
        empty = (*first, jnp.zeros((*rows, v.shape[-1])), rule.first_carry(rows))
        maximum, total, summed, _ = lax.fori_loop(0, count[i], one_key_tile, empty)
        # A row that never saw a key kept the maximum it started with; what it summed is worthless.
        sees_any = maximum > MASKED
        output = jnp.where(sees_any[..., None], summed / jnp.where(sees_any, total, 1.0)[..., None], 0.0)
        # Minus this constant, the logits of such a row vanish under the exponential of the backward pass too.
        log_total = jnp.where(sees_any, maximum + jnp.log(jnp.where(sees_any, total, 1.0)), -MASKED)
        return output.astype(v.dtype), log_total

    output, log_total = lax.map(one_query_tile, jnp.arange(length // tiles.query))
    return _join(output), _join(log_total)


def _forward_keeping(rule, tiles, parameters, sink, q, k, v, query, key):
    output, log_total = _forward(rule, tiles, parameters, sink, q, k, v, query, key)
    return output, (parameters, sink, q, k, v, query, key, output, log_total)


def _backward(rule, tiles, kept, d_output):
    parameters, sink, q, k, v, query, key, output, log_total = kept
    schedule, count = _schedule(rule, tiles, query, key)
    groups = k.shape[1]
    # Σ_j p_ij ∂p_ij, the same for all keys of a row (Dao et al. 2022, equation 4).
    correction_BxHxL = jnp.sum(d_output.astype(jnp.float32) * output.astype(jnp.float32), axis=-1)

    def one_query_tile(carry, i):
        d_parameters, d_k, d_vT, d_key_features = carry
        q_tile, query_tile = _slice(q, i, tiles.query), _slice_tokens(query, i, tiles.query)
        d_output_tile = _slice(d_output, i, tiles.query)
        log_total_tile, correction_tile = _slice(log_total, i, tiles.query), _slice(correction_BxHxL, i, tiles.query)
        carries = _carries(rule, tiles, parameters, q_tile, k, query_tile, key, schedule[i], count[i])

        def one_key_tile(step, running):
            d_parameters, d_q_tile, d_k, d_vT, d_query_features, d_key_features, d_carry = running
            step = step if carries is None else count[i] - 1 - step
            carry = None if carries is None else carries[step]
            j = schedule[i, step]
            k_tile, v_tile = _slice(k, j, tiles.key), _slice(v, j, tiles.key)
            key_tile = _slice_tokens(key, j, tiles.key)
            seen = visible(rule.span, query_tile, key_tile)

            def tile_logits(parameters, q_tile, k_tile, query_features, key_features, carry):
                queries = dataclasses.replace(query_tile, features=query_features)
                keys = dataclasses.replace(key_tile, features=key_features)
                return rule.logits(parameters, q_tile, k_tile, queries, keys, seen, carry)

            (logits, _), logits_vjp = jax.vjp(
                tile_logits, parameters, q_tile, k_tile, query_tile.features, key_tile.features, carry
            )
            logits = jnp.where(seen[:, None], logits, MASKED)
            weights = jnp.exp(logits - log_total_tile[..., None])
            if rule.scheme.plain_values():
                d_vT_tile = _values_gradient(weights, d_output_tile, groups)
                d_weights = _weights_gradient(d_output_tile, v_tile)
            else:
                of_values, d_weights, d_v_tile = _weighing_gradients(
                    rule, parameters, weights, v_tile, query_tile, key_tile, d_output_tile
                )
                d_parameters, d_vT_tile = _add(d_parameters, of_values), jnp.swapaxes(d_v_tile, 2, 3)
            d_logits = weights * (d_weights - correction_tile[..., None])
            more_parameters, more_q, more_k, more_query_features, more_key_features, d_carry = logits_vjp(
                (d_logits, d_carry)
            )
            return (
                _add(d_parameters, more_parameters),
                d_q_tile + more_q.astype(jnp.float32),
                _add_slice(d_k, more_k, j, axis=2),
                _add_slice(d_vT, d_vT_tile, j, axis=3),
                _add(d_query_features, more_query_features),
                jax.tree.map(lambda total, more: _add_slice(total, more, j, axis=1), d_key_features, more_key_features),
                d_carry,
            )

        start = (
            d_parameters,
            jnp.zeros(q_tile.shape, jnp.float32),
            d_k,
            d_vT,
            _zeros(query_tile.features),
            d_key_features,
            rule.first_carry(q_tile.shape[:3]),
        )
        d_parameters, d_q_tile, d_k, d_vT, d_query_features, d_key_features, _ = lax.fori_loop(
            0, count[i], one_key_tile, start
        )
        return (d_parameters, d_k, d_vT, d_key_features), (d_q_tile.astype(q.dtype), d_query_features)

    start = (_zeros(parameters), _zeros(k), _zeros(jnp.swapaxes(v, 2, 3)), _zeros(key.features))
    (d_parameters, d_k, d_vT, d_key_features), (d_q, d_query_features) = lax.scan(
        one_query_tile, start, jnp.arange(q.shape[2] // tiles.query)
    )
    d_sink = None
    if sink is not None:
        # The weight of a key without a value: p (0 - correction).
        d_sink = -jnp.sum(jnp.exp(sink[:, None] - log_total) * correction_BxHxL, axis=(0, 2))
    return (
        _cast(d_parameters, parameters),
        d_sink,
        _join(d_q),
        d_k.astype(k.dtype),
        jnp.swapaxes(d_vT, 2, 3).astype(v.dtype),
        _token_cotangents(query, jax.tree.map(lambda f: _join(f, axis=1), d_query_features)),
        _token_cotangents(key, d_key_features),
    )


_attend.defvjp(_forward_keeping, _backward)


def _schedule(rule, tiles, query, key) -> tuple[Array, Array]:
    """Per query tile: its live key tiles, int32 [query tiles, key tiles]; and how many, [query tiles].

    Oldest first, or newest first for schemes that accumulate. Keys of a document stand in order, so tiles do too.
    """
    live = live_tiles(rule.span, query, key, tiles.query, tiles.key)
    count = live.sum(axis=1, dtype=jnp.int32)
    if rule.scheme.accumulates():
        order = live.shape[1] - 1 - jnp.argsort(~live[:, ::-1], axis=1, stable=True)
    else:
        order = jnp.argsort(~live, axis=1, stable=True)
    return order.astype(jnp.int32), count


def _carries(rule, tiles, parameters, q_tile, k, query_tile, key, order, count) -> Array | None:
    """What each live key tile of one query tile was handed, [key tiles, B, H, Q]; None where nothing accumulates."""
    first = rule.first_carry(q_tile.shape[:3])
    if first is None:
        return None

    def one_key_tile(step, running):
        carries, carry = running
        carries = lax.dynamic_update_index_in_dim(carries, carry, step, 0)
        k_tile, key_tile = _slice(k, order[step], tiles.key), _slice_tokens(key, order[step], tiles.key)
        seen = visible(rule.span, query_tile, key_tile)
        return carries, rule.logits(parameters, q_tile, k_tile, query_tile, key_tile, seen, carry)[1]

    empty = jnp.zeros((order.shape[0], *first.shape), first.dtype)
    return lax.fori_loop(0, count, one_key_tile, (empty, first))[0]


def _weighing_gradients(rule, parameters, weights, v_tile, query_tile, key_tile, d_output_tile):
    """Gradients of a scheme's own `weigh`: of its learned numbers, the weights and the values of a tile."""

    def weigh(parameters, weights, v_tile):
        return rule.weigh(parameters, weights, v_tile, query_tile, key_tile)

    _, pull = jax.vjp(weigh, parameters, weights, v_tile)
    return pull(d_output_tile.astype(jnp.float32))


def _weights_gradient(d_output_BxHxQxK: Array, v_BxGxTxK: Array) -> Array:
    """Gradient of the weights of a tile, float32 [B, H, Q, T]."""
    batch, heads, queries, size = d_output_BxHxQxK.shape
    groups, keys = v_BxGxTxK.shape[1:3]
    d_output = d_output_BxHxQxK.reshape(batch, groups, heads // groups * queries, size)
    d_weights = jnp.einsum("bgqk,bgtk->bgqt", d_output, v_BxGxTxK, preferred_element_type=jnp.float32)
    return d_weights.reshape(batch, heads, queries, keys)


def _values_gradient(weights_BxHxQxT: Array, d_output_BxHxQxK: Array, groups: int) -> Array:
    """Gradient of the values of a tile, float32 [B, G, K, T]: summed over queries and the heads that share a value.

    Transposed, because the product then takes its large factor, the weights, as it lies: two thirds of the time on CPU.
    """
    batch, heads, queries, keys = weights_BxHxQxT.shape
    rows = heads // groups * queries
    weights = weights_BxHxQxT.reshape(batch, groups, rows, keys).astype(d_output_BxHxQxK.dtype)
    d_output = d_output_BxHxQxK.reshape(batch, groups, rows, -1)
    return jnp.einsum("bgqk,bgqt->bgkt", d_output, weights, preferred_element_type=jnp.float32)


def _slice(x: Array, i: Array, tile: int, axis: int = 2) -> Array:
    return lax.dynamic_slice_in_dim(x, i * tile, tile, axis)


def _slice_tokens(tokens: Tokens, i: Array, tile: int) -> Tokens:
    features = jax.tree.map(lambda f: _slice(f, i, tile, axis=1), tokens.features)
    position, document = _slice(tokens.position, i, tile, axis=1), _slice(tokens.document, i, tile, axis=1)
    drawn = None if tokens.drawn is None else _slice(tokens.drawn, i, tile, axis=1)
    return tokens_like(tokens, position=position, document=document, features=features, drawn=drawn)


def _add_slice(total: Array, more: Array, i: Array, axis: int) -> Array:
    tile = more.shape[axis]
    summed = _slice(total, i, tile, axis) + more.astype(total.dtype)
    return lax.dynamic_update_slice_in_dim(total, summed, i * tile, axis)


def _join(x_NxBxHxQ: Array, axis: int = 2) -> Array:
    """Tiles stacked in front become consecutive along `axis` of what remains."""
    moved = jnp.moveaxis(x_NxBxHxQ, 0, axis)
    shape = moved.shape
    return moved.reshape(*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])


def _zeros(tree):
    return jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), tree)


def _add(total, more):
    return jax.tree.map(lambda x, y: x + y.astype(x.dtype), total, more)


def _cast(tree, like):
    return jax.tree.map(lambda x, y: x.astype(y.dtype), tree, like)


def _token_cotangents(tokens: Tokens, d_features) -> Tokens:
    """Positions and documents are integers: they have no gradient."""
    none: Any = None
    return dataclasses.replace(tokens, position=none, document=none, features=_cast(d_features, tokens.features))

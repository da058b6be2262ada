"""Cross-entropy of next tokens, with full logits or in chunks so that `B × L × V` never exists.

Both ways are one chunk's mathematics, applied once or scanned. The custom gradient computes each chunk's gradients
together with its loss, so logits live for one chunk only and are computed once, not again in a backward pass.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from models.linear import sum_of_outer

Array = jax.Array

LOGITS_BUDGET_BYTES = 256 * 2**20


class Losses(NamedTuple):
    """Sums over the tokens of a batch, in nats; only `total` carries gradients.

    total: weighted cross-entropy plus the z-loss term, float32 []. Divide by `weight` for a mean.
    nats: weighted cross-entropy alone, float32 []. weight: the sum of weights, float32 [].
    nats_BxL: each token's cross-entropy before its weight, float32.
    """

    total: Array
    nats: Array
    weight: Array
    nats_BxL: Array


def chunk_tokens(tokens: int, vocabulary: int, budget_bytes: int = LOGITS_BUDGET_BYTES) -> int | None:
    """How many tokens' float32 logits fit `budget_bytes`; None where those of all `tokens` do.

    Chunks save memory, not time, so full logits are preferred while they fit. `tokens` is what one device holds.
    """
    if 4 * tokens * vocabulary <= budget_bytes:
        return None
    chunk = max(1, budget_bytes // (4 * vocabulary))
    return chunk - chunk % 128 if chunk >= 128 else chunk


def cross_entropy(
    hidden_BxLxD: Array,
    embedding_VxD: Array,
    targets_BxL: Array,
    weights_BxL: Array,
    *,
    soft_cap: float = 0.0,
    z_loss: float = 0.0,
    chunk: int | None = None,
) -> Losses:
    """The cross-entropy of `targets` under the logits `hidden · embeddingᵀ`.

    hidden: the compute dtype, in which the matmuls' operands are; logits, softmax and sums are float32.
    embedding: the tied embedding or a separate output matrix. targets: int32 in [0, V). weights: [B, L], 0 for tokens
    that do not count.
    soft_cap: logits become soft_cap · tanh(logits / soft_cap) (Gemma 2, arXiv:2408.00118); 0 for none.
    z_loss: the coefficient of weight · log² Z added to `total` (PaLM, arXiv:2204.02311, section 5); 0 for none.
    chunk: tokens whose logits exist at a time, as from `chunk_tokens`; None for all.
    """
    batch, length = targets_BxL.shape
    weights_BxL = jnp.broadcast_to(weights_BxL, targets_BxL.shape).astype(jnp.float32)
    total, nats_BxL = _total(
        hidden_BxLxD,
        embedding_VxD,
        targets_BxL,
        weights_BxL,
        (float(soft_cap), float(z_loss)),
        None if chunk is None or chunk >= batch * length else chunk,
    )
    nats_BxL = jax.lax.stop_gradient(nats_BxL)
    weights_BxL = jax.lax.stop_gradient(weights_BxL)
    return Losses(total, jnp.sum(nats_BxL * weights_BxL), jnp.sum(weights_BxL), nats_BxL)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _total(hidden, embedding, targets, weights, terms: tuple[float, float], chunk: int | None):
    """The differentiable total [] and each token's cross-entropy [B, L]; forward alone, without gradients."""

    def one(carry, tokens):
        logits = _logits(tokens[0], _as_compute(embedding, hidden), terms[0])
        nats, log_z = _nats(logits, tokens[1])
        return carry, (nats, nats + terms[1] * log_z**2)

    _, (nats, loss) = _over_chunks(one, None, (hidden, targets, weights), chunk)
    return jnp.sum(loss * weights), nats


def _forward(hidden, embedding, targets, weights, terms, chunk):
    """The outputs of `_total`, and its gradients as residuals: they only wait to be multiplied by a scalar."""
    soft_cap, z_loss = terms
    compute = _as_compute(embedding, hidden)

    def one(d_embedding_VxD, tokens):
        x_NxD, targets_N, weights_N = tokens
        logits_NxV = _logits(x_NxD, compute, soft_cap)
        nats_N, log_z_N = _nats(logits_NxV, targets_N)
        probability = jnp.exp(logits_NxV - log_z_N[:, None])
        hit = jax.lax.broadcasted_iota(jnp.int32, logits_NxV.shape, 1) == targets_N[:, None]
        d_logits = probability * (1 + 2 * z_loss * log_z_N[:, None]) - hit
        if soft_cap:
            d_logits = d_logits * (1 - (logits_NxV / soft_cap) ** 2)
        # The operands of a matmul share the compute dtype: a float32 operand would make both run in float32.
        d_logits = (d_logits * weights_N[:, None]).astype(x_NxD.dtype)
        d_x_NxD = jnp.dot(d_logits, compute, preferred_element_type=jnp.float32).astype(x_NxD.dtype)
        d_embedding_VxD += sum_of_outer(d_logits, x_NxD)
        return d_embedding_VxD, (nats_N, nats_N + z_loss * log_z_N**2, d_x_NxD)

    zero = jnp.zeros(embedding.shape, jnp.float32)
    d_embedding, (nats, loss, d_hidden) = _over_chunks(one, zero, (hidden, targets, weights), chunk)
    residuals = (d_hidden, d_embedding.astype(embedding.dtype), loss)
    return (jnp.sum(loss * weights), nats), residuals


def _backward(terms, chunk, residuals, cotangents):
    d_hidden, d_embedding, loss = residuals
    scale = cotangents[0]
    return (
        (d_hidden * scale).astype(d_hidden.dtype),
        (d_embedding * scale).astype(d_embedding.dtype),
        None,
        loss * scale,
    )


_total.defvjp(_forward, _backward)


def _as_compute(embedding: Array, hidden: Array) -> Array:
    return embedding.astype(hidden.dtype)


def _logits(x_NxD: Array, embedding_VxD: Array, soft_cap: float) -> Array:
    """Float32 logits [N, V]."""
    logits = jax.lax.dot_general(x_NxD, embedding_VxD, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    return soft_cap * jnp.tanh(logits / soft_cap) if soft_cap else logits


def _nats(logits_NxV: Array, targets_N: Array) -> tuple[Array, Array]:
    """Cross-entropy and log Z of each token, float32 [N]."""
    log_z_N = jax.nn.logsumexp(logits_NxV, axis=-1)
    target_N = jnp.take_along_axis(logits_NxV, targets_N[:, None], axis=-1)[:, 0]
    return log_z_N - target_N, log_z_N


def _over_chunks(function, carry, tokens, chunk: int | None):
    """Folds `function(carry, flat tokens) -> carry, per-token outputs` over the tokens [B, L, ...], a chunk at a time.

    A chunk takes every n-th token of every row instead of a run of neighbours, so that it is spread over the mesh as
    the batch is. Tokens that fill the last chunk up are zeros: weight 0. Outputs come back as [B, L, ...].
    """
    batch, length = tokens[1].shape
    if chunk is None:
        carry, outputs = function(carry, jax.tree.map(lambda x: x.reshape(batch * length, *x.shape[2:]), tokens))
        return carry, jax.tree.map(lambda y: y.reshape(batch, length, *y.shape[1:]), outputs)
    rows = batch if chunk >= batch else 1  # chunks smaller than one token of every row cut across rows
    columns = batch * length // rows
    count = math.ceil(columns / (chunk // rows))
    each = math.ceil(columns / count)

    def split(x):
        x = x.reshape(rows, columns, *x.shape[2:])
        x = jnp.pad(x, [(0, 0), (0, each * count - columns)] + [(0, 0)] * (x.ndim - 2))
        x = jnp.moveaxis(x.reshape(rows, each, count, *x.shape[2:]), 2, 0)
        return x.reshape(count, rows * each, *x.shape[3:])

    def join(y):
        y = jnp.moveaxis(y.reshape(count, rows, each, *y.shape[2:]), 0, 2)
        y = y.reshape(rows, each * count, *y.shape[3:])[:, :columns]
        return y.reshape(batch, length, *y.shape[2:])

    carry, outputs = jax.lax.scan(function, carry, jax.tree.map(split, tokens))
    return carry, jax.tree.map(join, outputs)

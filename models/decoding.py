"""Decoding with a cache: prefill a prompt, then one token at a time."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from models.cache import Cache, init_cache
from models.config import ModelConfig
from models.errors import require
from models.positions import Tokens
from models.sampling import Sampler
from models.transformer import Transformer, to_logits

Array = jax.Array


def prompt_tokens(valid_BxL: Array) -> Tokens:
    """Who the tokens of left-padded prompts are: padding is nobody, the first real token is at position 0."""
    position = jnp.cumsum(valid_BxL, axis=1, dtype=jnp.int32) - 1
    return Tokens(position=jnp.maximum(position, 0), document=jnp.where(valid_BxL, 0, -1).astype(jnp.int32))


def prefill(
    config: ModelConfig, parameters: dict[str, Any], tokens_BxL: Array, valid_BxL: Array, capacity: int
) -> tuple[Array, Cache]:
    """Logits [B, V] of the token after each prompt, and a cache of `capacity` slots that holds the prompts.

    Prompts of different lengths are padded on the left, where `valid_BxL` is False.
    """
    cache = init_cache(config, tokens_BxL.shape[0], capacity)
    return _last_logits(config, parameters, tokens_BxL, prompt_tokens(valid_BxL), cache)


def decode_step(config: ModelConfig, parameters: dict[str, Any], cache: Cache, tokens_B: Array) -> tuple[Array, Cache]:
    """Logits [B, V] of the token after `tokens_B`, which is given the next free slot of the cache."""
    seen = jnp.where(cache.tokens.document >= 0, cache.tokens.position, -1).max(axis=1, keepdims=True)
    where = Tokens(position=seen + 1, document=jnp.zeros_like(seen))
    return _last_logits(config, parameters, tokens_B[:, None], where, cache)


def _last_logits(config: ModelConfig, parameters: dict[str, Any], tokens_BxL: Array, where: Tokens, cache: Cache):
    hidden, new_cache = Transformer(config).apply({"params": parameters}, tokens_BxL, where, cache)
    return to_logits(config, parameters, hidden[:, -1]), new_cache


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def generate(
    config: ModelConfig,
    sampler: Sampler,
    count: int,
    parameters: dict[str, Any],
    tokens_BxL: Array,
    valid_BxL: Array,
    seed: Array,
) -> Array:
    """`count` new tokens after each left-padded prompt, int32 [B, count], in one compiled program.

    `layer_loop = "unroll"` (see unroll_parameters) is the faster stack here. Raises InvalidInput where `count` is below
    1, or a scheme is undefined at the length of prompt and new tokens together.
    """
    require(count >= 1, "count", count, "at least 1")
    logits, cache = prefill(config, parameters, tokens_BxL, valid_BxL, tokens_BxL.shape[1] + count)

    keys = jax.random.split(jax.random.key(seed), count)
    first = sampler.sample(logits, keys[0])

    def step(carry, key):
        token_B, cache = carry
        logits, cache = decode_step(config, parameters, cache, token_B)
        new = sampler.sample(logits, key)
        return (new, cache), new

    _, rest = jax.lax.scan(step, (first, cache), keys[1:])
    return jnp.concatenate([first[:, None], rest.T], axis=1)

"""From logits to the next token: greedy, temperature, top-k, top-p."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from models.errors import require

Array = jax.Array


@dataclass(frozen=True)
class Sampler:
    """temperature: 0 is greedy. top_k: 0 keeps all tokens. top_p: the smallest set of that probability; 1 keeps all.
    vocabulary_size: ids from there on are never drawn, which a model with more rows than its tokenizer has ids would
      give some probability; None draws any.

    Applied in this order: vocabulary, temperature, top-k (Fan et al. 2018), top-p (nucleus; Holtzman et al. 2020).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    vocabulary_size: int | None = None

    def __post_init__(self):
        require(self.temperature >= 0, "temperature", self.temperature, "at least 0 (0 is greedy)")
        require(self.top_k >= 0, "top_k", self.top_k, "at least 0 (0 keeps all tokens)")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        size = self.vocabulary_size
        require(size is None or size >= 1, "vocabulary_size", size, "at least 1, or None (draws any)")

    def sample(self, logits_BxV: Array, key: Array) -> Array:
        """One token a row, int32 [B]."""
        logits_BxV = logits_BxV[:, : self.vocabulary_size]
        if self.temperature == 0:
            return jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)
        kept = top_p(top_k(logits_BxV / self.temperature, self.top_k), self.top_p)
        return jax.random.categorical(key, kept, axis=-1).astype(jnp.int32)


def top_k(logits_BxV: Array, k: int) -> Array:
    """Logits with all but the k largest of each row at minus infinity."""
    if k == 0 or k >= logits_BxV.shape[-1]:
        return logits_BxV
    smallest = jax.lax.top_k(logits_BxV, k)[0][:, -1:]
    return jnp.where(logits_BxV < smallest, -jnp.inf, logits_BxV)


def top_p(logits_BxV: Array, p: float) -> Array:
    """Logits with those outside the smallest set of probability at least p at minus infinity; the largest stays."""
    if p == 1:
        return logits_BxV
    descending = jnp.sort(logits_BxV, axis=-1, descending=True)
    probability = jax.nn.softmax(descending, axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability
    smallest = jnp.where(before < p, descending, jnp.inf).min(axis=-1, keepdims=True)
    return jnp.where(logits_BxV < smallest, -jnp.inf, logits_BxV)

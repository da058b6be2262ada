"""How far attention spreads: the entropy of each layer's weights against the position of the query."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.evaluation.config import EvaluationConfig
from experiments.evaluation.statistics import log_buckets
from experiments.evaluation.suite import ModelAt, Text
from models.config import ModelConfig
from models.errors import InvalidInput, require
from models.positions.scheme import contiguous_tokens
from models.transformer import Transformer, unroll_parameters

Array = jax.Array


def entropy_by_position(
    model_at: ModelAt, parameters: Any, text: Text, lengths: tuple[int, ...], config: EvaluationConfig
) -> dict[str, Any]:
    """Mean entropy of attention, in nats, of every layer in log-spaced buckets of the query's position, for windows of
    each of `lengths` tokens, as plain JSON values.

    Windows are the first of the documents that hold one, as many as fit `config.batch_tokens`, at least one; a length
    that no document holds, or at which the model is undefined, has a reason in the place of layers, and so has every
    length where a layer's mixer has no weights of keys. Attention that
    weighs n keys alike has the entropy ln(n).
    """
    return {"curves": [_curve(model_at, parameters, text, length, config) for length in sorted(set(lengths))]}


def _curve(model_at: ModelAt, parameters: Any, text: Text, length: int, config: EvaluationConfig) -> dict[str, Any]:
    curve: dict[str, Any] = {"length": length, "windows": 0, "reason": None, "layers": []}
    holding = [ids[:length] for ids in text.tokens if len(ids) >= length]
    windows = holding[: max(1, config.batch_tokens // length)]
    if not windows:
        return curve | {"reason": f"no document holds {length} tokens"}
    try:
        model = model_at(length)
        model.require_length("length", length)
        for index in range(len(model.pattern)):
            mixer = model.layer_mixer(index)
            require(mixer.weighs_keys, "mixer.name", mixer.name, "one that weighs keys, whose entropy there is")
    except InvalidInput as error:
        return curve | {"reason": str(error)}
    entropy_LxN = np.asarray(layer_entropy(model, parameters, jnp.asarray(np.stack(windows), jnp.int32)))
    layers = [
        [{"from": low, "to": high, "nats": float(entropy_N[low:high].mean())} for low, high in log_buckets(length)]
        for entropy_N in entropy_LxN
    ]
    return curve | {"windows": len(windows), "layers": layers}


@functools.partial(jax.jit, static_argnums=0)
def layer_entropy(model: ModelConfig, parameters: dict[str, Any], tokens_BxN: Array) -> Array:
    """Entropy of the attention of each layer at each position of whole documents, mean over rows and heads, in nats,
    float32 [layers, N]. Memory is linear in N.
    """
    parameters = unroll_parameters(model, parameters)
    model = model.replace(layer_loop="unroll", rematerialize="none")
    where = contiguous_tokens(tokens_BxN.shape[1])
    _, sown = Transformer(model).apply({"params": parameters}, tokens_BxN, where, mutable=["intermediates"])
    repeats, pattern = model.layers // len(model.pattern), len(model.pattern)
    layers = []
    for layer in range(model.layers):
        unit, index = divmod(layer, pattern)
        name = f"unit_{unit}" if unit < repeats else "last_unit"
        (entropy_BxHxN,) = sown["intermediates"][name][f"layer_{index}"]["attention"]["entropy"]
        layers.append(entropy_BxHxN.mean(axis=(0, 1)))
    return jnp.stack(layers)

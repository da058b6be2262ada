"""One layer of attention twice: by the model's own module, and by its definition in float64 NumPy, pair by pair."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np

from models.attention import Full
from models.config import ModelConfig
from models.mixers import SoftmaxMixer
from models.positions.temperature import NoTemperature
from tests.models.samples import compiled, random, tokens_at

WIDTH, HEADS, GROUPS, SIZE, LENGTH = 18, 6, 3, 8, 40  # heads are no power of two
CONFIG = ModelConfig(width=WIDTH, heads=HEADS, kv_heads=GROUPS, head_size=SIZE, attention="reference")
QUERY, KEY = np.arange(LENGTH)[:, None], np.arange(LENGTH)[None, :]
CAUSAL = QUERY >= KEY


def weights(**more) -> dict:
    """Parameters of the layer, and `more` of the scheme or the temperature."""
    shapes = {"query": (WIDTH, HEADS, SIZE), "key": (WIDTH, GROUPS, SIZE), "value": (WIDTH, GROUPS, SIZE)}
    kernels = {name: random(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    kernels["output"] = random(HEADS, SIZE, WIDTH, seed=3)
    return {name: {"kernel": kernel / np.sqrt(WIDTH)} for name, kernel in kernels.items()} | more


@functools.partial(compiled, static_argnums=(0, 1, 2, 3))
def run(mixer, scheme, span, temperature, parameters, x_BxLxD, drawn=None):
    tokens = dataclasses.replace(tokens_at(np.arange(LENGTH)[None]), drawn=drawn)
    config = CONFIG.replace(mixer=mixer, position=scheme, span=span, temperature=temperature)
    module = mixer.module(config, 0)
    output_BxLxD, _ = module.apply({"params": parameters}, x_BxLxD, tokens, None, None, None)
    return output_BxLxD[0]


def by_module(scheme, span=None, temperature=None, drawn=None, mixer=None, parameters=None, **more) -> np.ndarray:
    """The layer's output [LENGTH, WIDTH] on random inputs; `parameters` in the place of `weights(**more)`."""
    x, parameters = random(1, LENGTH, WIDTH, seed=4), parameters or weights(**more)
    rest = (scheme, span or Full(), temperature or NoTemperature(), parameters, x, drawn)
    return np.asarray(run(mixer or SoftmaxMixer(), *rest))


def dot_products(q_HxLxK: np.ndarray, k_HxLxK: np.ndarray) -> np.ndarray:
    return np.einsum("hmk,hnk->hmn", q_HxLxK, k_HxLxK)


def by_definition(
    scores=dot_products, bias=0.0, seen=CAUSAL, factor=1.0, divisor=np.sqrt(SIZE), sink=-np.inf
) -> np.ndarray:
    """softmax(factor · scores(q, k) / divisor + bias) · v and its projection, float64 [LENGTH, WIDTH].

    bias, factor: of shapes that broadcast to [HEADS, LENGTH, LENGTH]. seen: bool [LENGTH, LENGTH]. sink: one more logit
    below, of shape () or [HEADS, 1, 1].
    """
    kernel = {name: np.asarray(one["kernel"], np.float64) for name, one in weights().items()}
    x = np.asarray(random(1, LENGTH, WIDTH, seed=4)[0], np.float64)
    q, k, v = (np.einsum("ld,dhk->hlk", x, kernel[name]) for name in ("query", "key", "value"))
    k, v = (np.repeat(one, HEADS // GROUPS, axis=0) for one in (k, v))
    logits = np.where(seen, factor * scores(q, k) / divisor + bias, -np.inf)
    share = np.exp(logits - logits.max(axis=-1, keepdims=True))
    share /= share.sum(axis=-1, keepdims=True) + np.exp(sink - logits.max(axis=-1, keepdims=True))
    return np.einsum("hmn,hnk,hkd->md", share, v, kernel["output"])


def turned(frequencies, distance=QUERY - KEY, layout="half_split", amplitude=1.0):
    """Scores of vectors turned against each other by distance · frequency, all pairs of numbers as complex ones.

    frequencies: radians [pairs] or, where each query has its own, [LENGTH, pairs]; numbers beyond the pairs stay.
    """
    frequencies = np.broadcast_to(frequencies, (LENGTH, np.shape(frequencies)[-1]))
    pairs = frequencies.shape[-1]

    def as_complex(x):
        part = x[..., : 2 * pairs]
        if layout == "half_split":
            return part[..., :pairs] + 1j * part[..., pairs:]
        return part[..., 0::2] + 1j * part[..., 1::2]

    def scores(q, k):
        phase = np.exp(1j * frequencies[:, None, :] * distance[:, :, None])
        found = np.einsum("hmp,hnp,mnp->hmn", as_complex(q), as_complex(k).conj(), phase).real
        return amplitude**2 * found + dot_products(q[..., 2 * pairs :], k[..., 2 * pairs :])

    return scores


def plain(width: int = SIZE, base: float = 10000.0) -> np.ndarray:
    """Su et al. 2021, equation 15, float64 [width / 2]."""
    return np.array([base ** (-2 * (i - 1) / width) for i in range(1, width // 2 + 1)])


def alibi(distance=QUERY - KEY) -> np.ndarray:
    """Press et al. 2022 for 6 heads, [HEADS, LENGTH, LENGTH]: the slopes of 4, and every second of those of 8."""
    slopes = [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3]
    return -np.array(slopes)[:, None, None] * distance


def parameters_of(specs, **values) -> dict:
    """Random learned numbers for specs, or those given."""
    return {name: jnp.asarray(values.get(name, random(*spec.shape, seed=9))) for name, spec in specs.items()}

"""The plain decoder by its definition, in float64 NumPy, head by head: no positions, RMSNorm, GELU, any placement."""

import jax
import numpy as np


def in_turn(formula):
    """A layer of one formula for attention and then for feed-forward.

    formula: of the stream x, the sublayer f, norm(place, x), and own(name), a number that the sublayer has learned.
    """

    def apply(x, sublayers, norm, own):
        for name, f in sublayers.items():
            x = formula(x, f, lambda place, x, name=name: norm(f"{name}_{place}", x), lambda part, n=name: own(n, part))
        return x

    return apply


def side_by_side(places):
    """A layer whose sublayers read the same stream, attention through the first norm and feed-forward the second."""

    def apply(x, sublayers, norm, own):
        return x + sum(f(norm(place, x)) for f, place in zip(sublayers.values(), places, strict=True))

    return apply


def pre(x, f, norm, own):
    return x + f(norm("input_norm", x))


# By their names in tests.models.samples.PLACEMENTS: the formula of every layer, and whether a final norm follows.
FORMULAS = {
    "pre": ([in_turn(pre)] * 2, True),
    "post": ([in_turn(lambda x, f, norm, own: norm("output_norm", x + f(x)))] * 2, False),
    "peri": ([in_turn(lambda x, f, norm, own: x + norm("output_norm", f(norm("input_norm", x))))] * 2, True),
    "post_inside": ([in_turn(lambda x, f, norm, own: x + norm("output_norm", f(x)))] * 2, True),
    "deepnorm": ([in_turn(lambda x, f, norm, own: norm("output_norm", 4**0.25 * x + f(x)))] * 2, False),
    "scaled": ([in_turn(lambda x, f, norm, own: x + 0.7 * f(norm("input_norm", x)))] * 2, True),
    "rezero": ([in_turn(lambda x, f, norm, own: x + own("") * f(x))] * 2, False),
    "layer_scale": ([in_turn(lambda x, f, norm, own: x + own("own") * f(norm("input_norm", x)))] * 2, True),
    "mixed": (
        [
            in_turn(lambda x, f, norm, own: norm("norm", x + f(x))),
            in_turn(lambda x, f, norm, own: x + f(norm("norm", x))),
        ],
        True,
    ),
    "parallel": ([side_by_side(["input_norm"] * 2)] * 2, True),
    "parallel, two norms": ([side_by_side(["attention_input_norm", "feed_forward_input_norm"])] * 2, True),
    "none": ([in_turn(lambda x, f, norm, own: x + f(x))] * 2, False),
}


def numpy_logits(config, parameters, tokens_BxL, layers=FORMULAS["pre"][0], final_norm=True):
    """Logits [B, L, V]; `layers` are functions such as those of FORMULAS, one a layer."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), parameters)

    def rms_norm(x, scale):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.norm.epsilon) * scale

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    def attention(x, q, k, v, out):
        total = np.zeros_like(x)
        for head in range(config.heads):
            group = head * config.kv_heads // config.heads
            scores = (x @ q[:, head]) @ np.swapaxes(x @ k[:, group], 1, 2) / np.sqrt(config.head_size)
            weights = np.exp(scores) * np.tri(x.shape[1])
            total += weights / weights.sum(-1, keepdims=True) @ (x @ v[:, group]) @ out[head]
        return total

    x = p["embedding"][tokens_BxL] * np.sqrt(config.width)
    for layer, formula in enumerate(layers):
        block = jax.tree.map(lambda stacked: stacked[layer], p["units"]["layer_0"])  # noqa: B023
        kernels = [block["attention"][name]["kernel"] for name in ("query", "key", "value", "output")]
        up, down = (block["feed_forward"][name]["kernel"] for name in ("up", "output"))
        x = formula(
            x,
            {
                "attention": lambda x, k=kernels: attention(x, *k),
                "feed_forward": lambda x, u=up, d=down: gelu(x @ u) @ d,
            },
            lambda name, x, block=block: rms_norm(x, block[name]["scale"]),
            lambda name, part, block=block: block[f"residual_{name}_scale" if part else "residual_scale"],
        )
    if final_norm:
        x = rms_norm(x, p["final_norm"]["scale"])
    return x @ p["embedding" if config.embeddings == "tied" else "output_embedding"].T

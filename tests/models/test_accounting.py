"""Parameters and operations against counts by hand."""

import jax
import pytest

from models.accounting import active_parameter_count, keys_seen, parameter_count, training_flops_per_token
from models.attention import Full, Sliding, Visibility, visible
from models.attention.visibility import And, Chunked, GlobalTokens, Or, Prefix, Strided
from models.config import FeedForwardConfig, LayerConfig, ModelConfig, NormConfig
from models.experts import Dropless, TokenChoice
from models.mixers import LatentMixer, LinearMixer, Mixer, SoftmaxMixer
from models.placements import Post
from models.positions import T5, Learned, NoPosition
from models.positions.scheme import contiguous_tokens
from models.transformer import init_parameters
from tests.models.samples import MIXERS, parameters_of

BASE = ModelConfig(vocabulary_size=100, layers=3, width=16, heads=4, kv_heads=2, position=NoPosition())
ATTENTION = 16 * 16 + 2 * 16 * 8 + 16 * 16  # queries; keys and values; output
PLAIN = 2 * 16 * 64
EXPERTS = Dropless(count=8, top_k=2, width=10, shared=1)
# Latents of 5, 2 rotated numbers, keys of 4 and values of 3, of queries from latents of 7.
LATENT = LatentMixer(rank=5, query_rank=7, rotary_size=2, value_size=3)
OF_LATENT = 16 * (5 + 2 + 7) + 7 * 4 * 6 + 5 * 4 * 4 + 5 * 4 * 3 + 4 * 3 * 16


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 100 * 16 + 3 * (ATTENTION + PLAIN + 2 * 16) + 16),
        ({"embeddings": "separate"}, 2 * 100 * 16 + 3 * (ATTENTION + PLAIN + 2 * 16) + 16),
        ({"feed_forward": FeedForwardConfig("swiglu", 40)}, 100 * 16 + 3 * (ATTENTION + 3 * 16 * 40 + 2 * 16) + 16),
        ({"norm": NormConfig("layer", Post())}, 100 * 16 + 3 * (ATTENTION + PLAIN + 2 * 2 * 16)),
        (
            {"experts": EXPERTS, "feed_forward": FeedForwardConfig("reglu", 24)},
            100 * 16 + 3 * (ATTENTION + 16 * 8 + (8 + 1) * 3 * 16 * 10 + 2 * 16) + 16,
        ),
        (
            {"experts": TokenChoice(count=4), "feed_forward": FeedForwardConfig(width=24, bias=True)},
            100 * 16 + 3 * (ATTENTION + 16 * 4 + 4 * (2 * 16 * 24 + 24 + 16) + 2 * 16) + 16,
        ),
        ({"position": Learned(length=50)}, 100 * 16 + 3 * (ATTENTION + PLAIN + 2 * 16) + 16 + 50 * 16),
        ({"position": T5(buckets=8)}, 100 * 16 + 3 * (ATTENTION + PLAIN + 2 * 16 + 8 * 4) + 16),
        ({"mixer": SoftmaxMixer("rms", "learned")}, 100 * 16 + 3 * (ATTENTION + 2 * 4 + 4 + PLAIN + 2 * 16) + 16),
        ({"mixer": LATENT}, 100 * 16 + 3 * (OF_LATENT + 5 + 7 + PLAIN + 2 * 16) + 16),
        ({"mixer": LinearMixer()}, 100 * 16 + 3 * (ATTENTION + PLAIN + 2 * 16) + 16),
    ],
)
def test_parameters(changes, count):
    config = BASE.replace(**changes)
    for loop in ("scan", "unroll"):
        looped = config.replace(layer_loop=loop)
        assert parameter_count(jax.eval_shape(lambda looped=looped: init_parameters(looped, 0))) == count


@pytest.mark.parametrize(
    "span",
    [
        *(cls() for _, cls in Visibility.registry.items()),
        *(Sliding(1), Sliding(5), Sliding(99), Strided(9), Chunked(40), Prefix(20)),
        Or((And((Sliding(50), Chunked(70))), GlobalTokens(3))),
    ],
)
@pytest.mark.parametrize("length", [1, 7, 300])
def test_keys_seen_are_the_visible_ones(span, length):
    row = contiguous_tokens(length)
    assert keys_seen(span, length) == pytest.approx(float(visible(span, row, row).sum()) / length)
    assert keys_seen(Full(), length) == (length + 1) / 2


def test_a_token_uses_the_experts_it_passes_through():
    def active(**changes):
        config = BASE.replace(**changes)
        return active_parameter_count(config, jax.eval_shape(lambda: init_parameters(config, 0)))

    dense = 100 * 16 + 3 * (ATTENTION + 2 * 16) + 16
    assert active() == dense + 3 * PLAIN
    gated = FeedForwardConfig("reglu", 24)
    assert active(experts=EXPERTS, feed_forward=gated) == dense + 3 * (16 * 8 + (2 + 1) * 3 * 16 * 10)
    biased = {"experts": TokenChoice(count=4), "feed_forward": FeedForwardConfig(width=24, bias=True)}
    assert active(**biased) == dense + 3 * (16 * 4 + 2 * (2 * 16 * 24 + 24 + 16))
    half = active(pattern=(LayerConfig(), LayerConfig(experts=EXPERTS)), feed_forward=gated)
    assert half == dense + 2 * 3 * 16 * 24 + 16 * 8 + (2 + 1) * 3 * 16 * 10


def test_operations():
    """Of each product, 2 forward and 4 backward per weight; a query meets (L + 1)/2 keys in two products of 4 · 4."""
    weights = 100 * 16 + 3 * (ATTENTION + PLAIN)
    assert training_flops_per_token(BASE, 9) == 6 * weights + 3 * (2 * 6 * 16 * 5)
    gated = BASE.replace(feed_forward=FeedForwardConfig("geglu", 40))
    assert training_flops_per_token(gated, 9) == 6 * (weights - 3 * PLAIN + 3 * 3 * 16 * 40) + 3 * (2 * 6 * 16 * 5)
    sliding = BASE.replace(pattern=(LayerConfig(span=Sliding(1)), LayerConfig()))
    assert training_flops_per_token(sliding, 9) == 6 * weights + 2 * 6 * 16 * (1 + 5 + 1)
    chunked = BASE.replace(span=Chunked(3))
    assert training_flops_per_token(chunked, 9) == 6 * weights + 3 * (2 * 6 * 16 * 2)
    mixed = BASE.replace(pattern=(LayerConfig(), LayerConfig(experts=EXPERTS)))
    routed = weights - PLAIN + 16 * 8 + (2 + 1) * 2 * 16 * 10
    assert training_flops_per_token(mixed, 9) == 6 * routed + 3 * (2 * 6 * 16 * 5)


def test_operations_of_mixers():
    plain = 6 * (100 * 16 + 3 * (ATTENTION + PLAIN))
    of_sums = 2 * 4 * 4 * (2 + 4)  # a key head's matrix of 4 · 4 is added to, a query head's is multiplied by
    assert training_flops_per_token(BASE.replace(mixer=LinearMixer()), 9) == plain + 3 * 3 * of_sums
    of_pairs = 2 * 4 * (4 + 2 + 3)
    latent = 6 * (100 * 16 + 3 * (OF_LATENT + PLAIN)) + 3 * 3 * of_pairs * 5
    assert training_flops_per_token(BASE.replace(mixer=LATENT), 9) == latent
    mixed = BASE.replace(pattern=(LayerConfig(mixer=LinearMixer()), LayerConfig()))
    assert training_flops_per_token(mixed, 9) == plain + 2 * 3 * of_sums + 2 * 6 * 16 * 5


@pytest.mark.parametrize("mixer", MIXERS.values(), ids=MIXERS)
def test_weights_are_the_kernels_of_a_layer(mixer: Mixer):
    config = BASE.replace(mixer=mixer)
    attention = parameters_of(config)["units"]["layer_0"]["attention"]
    kernels = [part["kernel"] for part in attention.values() if isinstance(part, dict) and "kernel" in part]
    assert mixer.weights(config) * config.layers == sum(kernel.size for kernel in kernels)

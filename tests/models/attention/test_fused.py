"""The fused kernel: refused with its reason, or the same function."""

import jax
import jax.numpy as jnp
import pytest

from models import attention
from models.attention import AttentionRule, Full, Sliding, attend, fused_attention, reference_attention
from models.attention.fused import why_not_fused
from models.attention.visibility import And, Visibility
from models.errors import InvalidInput
from models.positions import ALiBi, DynamicNTK, NoPosition, Rotary
from models.positions.scheme import contiguous_tokens
from tests.models.samples import random, relative_error, whole

LENGTH = 16
PLAIN = AttentionRule(NoPosition(), Full())


def vectors(heads=4, groups=2, size=16, length=LENGTH, dtype=jnp.bfloat16):
    return tuple(random(2, h, length, size, seed=h + i, dtype=dtype) for i, h in enumerate((heads, groups, groups)))


def reason(rule=PLAIN, tokens=None, keys=None, **shape):
    tokens = contiguous_tokens(LENGTH) if tokens is None else tokens
    q, k, _ = vectors(**shape)
    return why_not_fused(rule, q, k, tokens, tokens if keys is None else keys)


def test_without_a_gpu_it_is_refused(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")  # which a machine with one pretends
    tokens = contiguous_tokens(LENGTH)
    with pytest.raises(InvalidInput, match=r"^attention = 'fused' needs a GPU; this is cpu"):
        attend("fused", PLAIN, {}, *vectors(), tokens, tokens)


class GPU:
    """What jax tells of one."""

    def __init__(self, compute_capability):
        self.compute_capability = compute_capability


@pytest.fixture
def gpu(monkeypatch):
    """Pretends to compute on a GPU; one of compute capability 9.0 unless told another."""

    def choose(capability):
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        monkeypatch.setattr(jax, "local_devices", lambda backend: [GPU(capability)])

    choose("9.0")
    return choose


@pytest.mark.parametrize(("capability", "largest"), [("8.0", 128), ("8.9", 128), ("9.0", 256), ("10.3", 256)])
def test_the_largest_head_depends_on_the_gpu(gpu, capability, largest):
    gpu(capability)
    assert reason(size=largest) is None
    wanted = f"needs a head size of at most {largest} on this GPU and a multiple of 8, not {largest + 8}"
    assert reason(size=largest + 8) == wanted


@pytest.mark.parametrize("capability", ["7.5", "gfx942"])
def test_a_gpu_without_the_kernel_is_refused(gpu, capability):
    gpu(capability)
    assert reason() == "needs an NVIDIA GPU of compute capability 8.0 or later"


def test_each_reason_is_named(gpu):
    assert reason() is None
    assert reason(AttentionRule(Rotary(), Sliding(4))) is None
    assert "float32" in reason(dtype=jnp.float32)
    assert reason(size=12) == "needs a head size of at most 256 on this GPU and a multiple of 8, not 12"
    assert "'alibi' changes logits" in reason(AttentionRule(ALiBi(), Full()))
    assert "'rope' changes logits" in reason(AttentionRule(Rotary(scaling=DynamicNTK(original_length=4)), Full()))
    assert reason(AttentionRule(Rotary(), And((Full(),)))) == "span.name = 'and' is not known to the kernel"
    assert reason(tokens=whole(2, LENGTH)) == "needs one whole document per row"
    assert reason(keys=whole(2, LENGTH)) == "needs one whole document per row"
    assert reason(AttentionRule(Rotary(), Full(), soft_cap=3.0)) == "mixer.soft_cap = 3.0 changes logits"
    assert "'latent' has keys and values of different sizes" in reason(AttentionRule(Rotary(), Full(), rotary_size=8))
    tokens, (q, k, _) = contiguous_tokens(LENGTH), vectors()
    assert why_not_fused(PLAIN, q, k, tokens, tokens, random(4)) == "mixer.sink = 'learned' is not known to the kernel"


def test_the_kernel_knows_two_spans(gpu):
    known = [name for name, cls in Visibility.registry.items() if reason(AttentionRule(Rotary(), cls())) is None]
    assert known == ["full", "sliding"]


def test_auto_picks_by_device_and_size(gpu, monkeypatch):
    called = []
    for name in attention.IMPLEMENTATIONS:
        monkeypatch.setitem(attention.IMPLEMENTATIONS, name, lambda *_, name=name, **__: called.append(name))
    few, many = contiguous_tokens(LENGTH), contiguous_tokens(1024)
    for tokens in (few, many):
        shapes = [jax.ShapeDtypeStruct((2, h, tokens.position.shape[1], 16), jnp.bfloat16) for h in (4, 2, 2)]
        for backend in ("cpu", "gpu"):
            monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
            attend("auto", PLAIN, {}, *shapes, tokens, tokens)
    attend("reference", PLAIN, {}, *shapes, many, many)
    assert called == ["reference", "fused", "blockwise", "fused", "reference"]


def test_an_unknown_implementation_is_refused():
    tokens = contiguous_tokens(LENGTH)
    with pytest.raises(InvalidInput, match=r"^attention = 'flash' .* auto, reference, blockwise, fused$"):
        attend("flash", PLAIN, {}, *vectors(), tokens, tokens)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="runs the cuDNN kernel, which exists on an NVIDIA GPU alone")
@pytest.mark.parametrize("span", [Full(), Sliding(1), Sliding(100)])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_on_a_gpu_it_is_the_same_function(span, groups):
    tokens, rule = contiguous_tokens(256), AttentionRule(NoPosition(), span)
    q, k, v = vectors(groups=groups, size=64, length=256)
    q, weight = q / 8, random(*q.shape, seed=7, dtype=jnp.bfloat16)

    def evaluate(function, dtype):
        values, pull = jax.vjp(lambda *x: function(rule, {}, *x, tokens, tokens), *(x.astype(dtype) for x in (q, k, v)))
        return values, pull(weight.astype(dtype))

    got, wanted = evaluate(fused_attention, jnp.bfloat16), evaluate(reference_attention, jnp.float32)
    assert relative_error(got, wanted) < 0.02

"""Normalization of activations: LayerNorm and RMSNorm, each in two kinds, and none."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.parameters import parameter
from models.registry import Registry

Array = jax.Array

NORMS: Registry[type[nn.Module]] = Registry("norm.name")


# Backward computes these again from their input: keeping what lies between costs more than computing it.
@functools.partial(jax.checkpoint, static_argnums=2)
def rms_norm(x: Array, scale: Array, epsilon: float) -> Array:
    """x / √(mean x² + ε) · scale over the last axis; computed in float32, in the dtype of `x`."""
    wide = x.astype(jnp.float32)
    return (wide * jax.lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + epsilon) * scale).astype(x.dtype)


@functools.partial(jax.checkpoint, static_argnums=3)
def layer_norm(x: Array, scale: Array, bias: Array, epsilon: float) -> Array:
    """(x - mean) / √(variance + ε) · scale + bias over the last axis; computed in float32, in the dtype of `x`."""
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, -1, keepdims=True)
    normed = centred * jax.lax.rsqrt(jnp.mean(centred * centred, -1, keepdims=True) + epsilon)
    return (normed * scale + bias).astype(x.dtype)


@NORMS.register("rms")
class RMSNorm(nn.Module):
    """x / √(mean x² + ε) · scale over the last axis (Zhang & Sennrich 2019)."""

    epsilon: float
    axis: str | None = "embed"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = parameter(self, "scale", nn.initializers.ones, (self.axis,), x.shape[-1:])
        return rms_norm(x, scale, self.epsilon)


@NORMS.register("layer")
class LayerNorm(nn.Module):
    """(x - mean) / √(variance + ε) · scale + bias over the last axis (Ba et al. 2016)."""

    epsilon: float
    axis: str | None = "embed"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = parameter(self, "scale", nn.initializers.ones, (self.axis,), x.shape[-1:])
        bias = parameter(self, "bias", nn.initializers.zeros, (self.axis,), x.shape[-1:])
        return layer_norm(x, scale, bias, self.epsilon)


@NORMS.register("layer_without_bias")
class LayerNormWithoutBias(nn.Module):
    """(x - mean) / √(variance + ε) · scale over the last axis (PaLM, Chowdhery et al. 2022, section 2: no biases)."""

    epsilon: float
    axis: str | None = "embed"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = parameter(self, "scale", nn.initializers.ones, (self.axis,), x.shape[-1:])
        return layer_norm(x, scale, jnp.zeros_like(scale), self.epsilon)


@NORMS.register("zero_centred_rms")
class ZeroCentredRMSNorm(nn.Module):
    """x / √(mean x² + ε) · (1 + scale) over the last axis, with a scale from 0 (Gemma, Google 2024).

    What pulls parameters to zero, as weight decay does, leaves such a norm as it began. The optimizers here decay no
    norm, so that it trains as RMSNorm does but for rounding.
    """

    epsilon: float
    axis: str | None = "embed"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = parameter(self, "scale", nn.initializers.zeros, (self.axis,), x.shape[-1:])
        return rms_norm(x, 1 + scale, self.epsilon)


@NORMS.register("none")
class NoNorm(nn.Module):
    """x: what a placement puts around its norms stays, such as factors on what a sublayer adds."""

    epsilon: float
    axis: str | None = "embed"

    def __call__(self, x: Array) -> Array:
        return x


def make_norm(name: str, epsilon: float, axis: str | None = "embed"):
    """A constructor `(name=…) -> module` of a norm, over an axis of the logical name `axis` (None: never split)."""
    return functools.partial(NORMS[name], epsilon, axis)

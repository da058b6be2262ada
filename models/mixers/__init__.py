"""What mixes tokens in a layer: attention by softmax, over latents, or without one. One small file each."""

from models.mixers.cross import CrossAttention
from models.mixers.latent import LatentAttention, LatentMixer
from models.mixers.linear import LinearAttention, LinearMixer
from models.mixers.mixer import Mixer
from models.mixers.softmax import SoftmaxAttention, SoftmaxMixer

__all__ = [
    "CrossAttention",
    "LatentAttention",
    "LatentMixer",
    "LinearAttention",
    "LinearMixer",
    "Mixer",
    "SoftmaxAttention",
    "SoftmaxMixer",
]

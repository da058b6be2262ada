"""Scaling rules of rotary positions; importing this package fills their registry."""

from models.positions.scaling.linear import Linear
from models.positions.scaling.llama3 import Llama3
from models.positions.scaling.longrope import LongRoPE
from models.positions.scaling.none import NoScaling
from models.positions.scaling.ntk import DynamicNTK, FixedNTK, MixedNTK, NTKAware
from models.positions.scaling.rule import Scaling
from models.positions.scaling.yarn import NTKByParts, YaRN

__all__ = [
    "DynamicNTK",
    "FixedNTK",
    "Linear",
    "Llama3",
    "LongRoPE",
    "MixedNTK",
    "NTKAware",
    "NTKByParts",
    "NoScaling",
    "Scaling",
    "YaRN",
]

"""Positional schemes; importing this package fills their registry."""

from models.positions.alibi import ALiBi
from models.positions.cope import CoPE
from models.positions.deberta import DeBERTa
from models.positions.digits import BaseN
from models.positions.distance_function import DistanceFunction, distance_function
from models.positions.fire import FIRE
from models.positions.forgetting import Forgetting
from models.positions.hugging_face import (
    frequencies_from_hugging_face,
    rotary_from_hugging_face,
    rotary_to_hugging_face,
)
from models.positions.kerple import KerpleLog, KerplePower
from models.positions.learned import Learned
from models.positions.none import NoPosition
from models.positions.rotary import Rotary
from models.positions.sandwich import Sandwich
from models.positions.scaling import (
    DynamicNTK,
    FixedNTK,
    Linear,
    Llama3,
    LongRoPE,
    MixedNTK,
    NoScaling,
    NTKAware,
    NTKByParts,
    Scaling,
    YaRN,
)
from models.positions.scheme import PositionScheme, Tile, Tokens
from models.positions.shaw import Shaw
from models.positions.sinusoidal import Sinusoidal
from models.positions.t5 import T5
from models.positions.xpos import XPos

__all__ = [
    "FIRE",
    "T5",
    "ALiBi",
    "BaseN",
    "CoPE",
    "DeBERTa",
    "DistanceFunction",
    "DynamicNTK",
    "FixedNTK",
    "Forgetting",
    "KerpleLog",
    "KerplePower",
    "Learned",
    "Linear",
    "Llama3",
    "LongRoPE",
    "MixedNTK",
    "NTKAware",
    "NTKByParts",
    "NoPosition",
    "NoScaling",
    "PositionScheme",
    "Rotary",
    "Sandwich",
    "Scaling",
    "Shaw",
    "Sinusoidal",
    "Tile",
    "Tokens",
    "XPos",
    "YaRN",
    "distance_function",
    "frequencies_from_hugging_face",
    "rotary_from_hugging_face",
    "rotary_to_hugging_face",
]

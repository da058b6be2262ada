"""Positional schemes; importing this package fills their registry."""

from models.positions.alibi import ALiBi
from models.positions.hugging_face import frequencies_from_hugging_face
from models.positions.learned import Learned
from models.positions.none import NoPosition
from models.positions.rotary import Rotary
from models.positions.scaling import DynamicNTK, Linear, NoScaling, NTKAware, NTKByParts, Scaling, YaRN
from models.positions.scheme import PositionScheme, Tile, Tokens
from models.positions.sinusoidal import Sinusoidal
from models.positions.t5 import T5

__all__ = [
    "T5",
    "ALiBi",
    "DynamicNTK",
    "Learned",
    "Linear",
    "NTKAware",
    "NTKByParts",
    "NoPosition",
    "NoScaling",
    "PositionScheme",
    "Rotary",
    "Scaling",
    "Sinusoidal",
    "Tile",
    "Tokens",
    "YaRN",
    "frequencies_from_hugging_face",
]

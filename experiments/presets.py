"""Published mixtures of layers, as layer patterns: a configuration sets `model.pattern` to one and has that model's.

Each takes the published numbers by default; they suit published lengths, so a study at short ones says its own. DroPE,
which mixes in time what these mix in depth, is a recipe of two runs: see experiments/configs/context_extension.py.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from models.attention.visibility import Chunked, Full, Sliding
from models.config import LayerConfig
from models.positions import Linear, NoPosition, Rotary
from models.positions.temperature import Llama4Temperature

Pattern = tuple[LayerConfig, ...]


def irope(chunk: int = 8192, base: float = 500_000.0) -> Pattern:
    """Three layers with rotary positions that attend within chunks, then one without positions that sees everything,
    its scores multiplied by a temperature that grows with the position: Llama 4.

    chunk: tokens a chunk, and the steps that the temperature grows in.
    Source: Llama 4 (Meta 2025) as in transformers, where Scout has chunks and `floor_scale` of 8192, `attn_scale` 0.1
    and rope_theta 500,000; the layers without positions are those of Kazemnejad et al. (2023), "The Impact of
    Positional Encoding on Length Generalization in Transformers".
    """
    local = LayerConfig(position=Rotary(base=base, layout="interleaved"), span=Chunked(chunk))
    everywhere = LayerConfig(
        position=NoPosition(), span=Full(), temperature=Llama4Temperature(strength=0.1, floor_length=chunk)
    )
    return local, local, local, everywhere


def smollm3(base: float = 50_000.0) -> Pattern:
    """Three layers with rotary positions, then one without; all see everything: SmolLM3.

    base: 50,000 at its training length of 4096, 1.5 million at 32,768, 5 million at 65,536.
    Source: SmolLM3 (Hugging Face 2025) and, as its source, Yang et al. (2025), "Rope to Nope and Back Again: A New
    Hybrid Attention Strategy".
    """
    rotary = LayerConfig(position=Rotary(base=base))
    return rotary, rotary, rotary, LayerConfig(position=NoPosition())


def gemma3(window: int = 1024, factor: float = 1.0) -> Pattern:
    """Five layers of a sliding window with the rotary base 10,000, then one that sees everything with the base
    1,000,000: Gemma 3.

    factor: by which the frequencies of the layers that see everything are divided: 1 where it is trained, at 32,768
      tokens, and 8 for its extension to 131,072.
    Source: Gemma 3 (Gemma Team 2025), "Gemma 3 Technical Report", sections 2 and 2.1; the smallest one has windows of
    512.
    """
    local = LayerConfig(position=Rotary(base=10_000.0), span=Sliding(window))
    everywhere = LayerConfig(position=Rotary(base=1_000_000.0, scaling=Linear(factor)), span=Full())
    return local, local, local, local, local, everywhere


PRESETS: dict[str, Callable[..., Pattern]] = {"irope": irope, "smollm3": smollm3, "gemma3": gemma3}


def plain_pattern(pattern: Pattern) -> list[dict[str, Any]]:
    """A pattern as one entry of a sweep holds it, under `model.pattern`: of each layer, what it says itself."""
    return [{field: _plain(part) for field, part in vars(layer).items() if part is not None} for layer in pattern]


def _plain(alternative: Any) -> dict[str, Any]:
    """The name of an alternative, and those of its fields that differ from the defaults."""
    default = type(alternative)()
    changed = {key: value for key, value in vars(alternative).items() if value != getattr(default, key)}
    fields = {key: _plain(value) if dataclasses.is_dataclass(value) else value for key, value in changed.items()}
    return {"name": alternative.name, **fields}

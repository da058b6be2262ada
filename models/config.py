"""The configuration of a decoder: frozen, typed, validated where it is made."""

import dataclasses
import math
from dataclasses import dataclass, field

import jax.numpy as jnp

from models import attention, feed_forward, norms
from models.attention import Full, Visibility
from models.errors import invalid, require, require_choice
from models.experts.experts import Experts, Mixture, NoExperts
from models.mixers import Mixer, SoftmaxMixer
from models.placements import Placement, Pre
from models.positions import PositionScheme
from models.positions.index import Index
from models.positions.rotary import Rotary
from models.positions.temperature import NoTemperature, Temperature

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
LAYER_LOOPS = ("scan", "unroll")
REMATERIALIZATION = ("none", "dots", "full")
EMBEDDINGS = ("tied", "separate")


@dataclass(frozen=True)
class FeedForwardConfig:
    """name: the activation. width: hidden size; None is 4 × model width, or 8/3 of it for gated activations. bias: on
    all of its linear maps, initially 0."""

    name: str = "gelu"
    width: int | None = None
    bias: bool = False

    def __post_init__(self):
        require_choice("name", self.name, feed_forward.ACTIVATIONS)
        require(self.width is None or self.width >= 1, "width", self.width, "at least 1")


@dataclass(frozen=True)
class NormConfig:
    """name: the kind of norm. placement: where it stands around attention and feed-forward."""

    name: str = "rms"
    placement: Placement = field(default_factory=Pre)
    epsilon: float = 1e-6

    def __post_init__(self):
        require_choice("name", self.name, norms.NORMS)
        require(self.epsilon > 0, "epsilon", self.epsilon, "above 0")


@dataclass(frozen=True)
class LayerConfig:
    """One place of the layer pattern; None takes the model's own position, span, temperature, mixer or experts."""

    position: PositionScheme | None = None
    span: Visibility | None = None
    temperature: Temperature | None = None
    mixer: Mixer | None = None
    experts: Experts | None = None


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer.

    vocabulary_size: rows of the embedding; None is filled with the tokenizer's size.
    layers, width, heads: the shape. kv_heads: None is `heads` (MHA), fewer is GQA, 1 is MQA. head_size: None is
      width / heads.
    position, span, temperature, mixer: positional scheme, visible keys, factor on the scores and what mixes tokens, of
      every layer that the pattern does not say otherwise of.
    experts: what stands in the place of one feed-forward layer where the pattern does not say otherwise; "none" is that
      layer.
    pattern: the repeating unit of layers; layer i is pattern[i mod len(pattern)].
    embeddings: "tied" uses the input embedding as the output matrix.
    dropout: share of activations dropped in training. logit_soft_cap: c of c·tanh(logits/c); 0 is off.
    dtype: of computation; parameters are float32 always.
    layer_loop: "scan" compiles one unit, "unroll" all (faster to decode). rematerialize: what the backward pass
      computes again: nothing, all but matrix products, everything.
    attention: the implementation; "auto" picks.
    """

    vocabulary_size: int | None = None
    layers: int = 4
    width: int = 128
    heads: int = 4
    kv_heads: int | None = None
    head_size: int | None = None
    feed_forward: FeedForwardConfig = field(default_factory=FeedForwardConfig)
    norm: NormConfig = field(default_factory=NormConfig)
    position: PositionScheme = field(default_factory=Rotary)
    span: Visibility = field(default_factory=Full)
    temperature: Temperature = field(default_factory=NoTemperature)
    mixer: Mixer = field(default_factory=SoftmaxMixer)
    experts: Experts = field(default_factory=NoExperts)
    pattern: tuple[LayerConfig, ...] = (LayerConfig(),)
    embeddings: str = "tied"
    dropout: float = 0.0
    logit_soft_cap: float = 0.0
    dtype: str = "float32"
    layer_loop: str = "scan"
    rematerialize: str = "none"
    attention: str = "auto"

    def __post_init__(self):
        for name in ("layers", "width", "heads", "kv_heads", "head_size", "vocabulary_size"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "at least 1")
        require(
            self.head_size is not None or self.width % self.heads == 0,
            "heads",
            self.heads,
            f"a divisor of width = {self.width}, or head_size must be set",
        )
        require(self.heads % self.key_heads == 0, "kv_heads", self.kv_heads, f"a divisor of heads = {self.heads}")
        require(
            1 <= len(self.pattern) <= self.layers,
            "pattern",
            f"{len(self.pattern)} layers",
            f"1 to {self.layers} layers",
        )
        require_choice("embeddings", self.embeddings, EMBEDDINGS)
        require(0 <= self.dropout < 1, "dropout", self.dropout, "at least 0 and below 1")
        capped = 0 <= self.logit_soft_cap < math.inf
        require(capped, "logit_soft_cap", self.logit_soft_cap, "a finite number of at least 0 (0 is off)")
        require_choice("dtype", self.dtype, DTYPES)
        require_choice("layer_loop", self.layer_loop, LAYER_LOOPS)
        require_choice("rematerialize", self.rematerialize, REMATERIALIZATION)
        require_choice("attention", self.attention, attention.CHOICES)
        for index in range(len(self.pattern)):
            self.layer_mixer(index).check(self, index)
            _require_causal(self.layer_experts(index))
            _require_direction(self.layer_span(index), self.layer_position(index))
        for scheme in self.schemes():
            scheme.check_index()
            scheme.check_width(self.width)
        if len({scheme.index for scheme in self.schemes() if scheme.index.draws}) > 1:
            raise invalid("pattern", "schemes that draw positions differently", "one way of drawing for all layers")
        tables = [scheme.name for scheme in self.schemes() if scheme.has_table()]
        twice = [name for name in tables if tables.count(name) > 1]
        if twice:
            raise invalid("pattern", f"two schemes {twice[0]!r} with tables", "one of each name")

    @property
    def vocabulary(self) -> int:
        """The vocabulary's size, once known. Raises InvalidInput while it is None."""
        if self.vocabulary_size is None:
            raise invalid("vocabulary_size", None, "a number of tokens")
        return self.vocabulary_size

    @property
    def key_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def head_width(self) -> int:
        return self.width // self.heads if self.head_size is None else self.head_size

    @property
    def feed_forward_width(self) -> int:
        if self.feed_forward.width is not None:
            return self.feed_forward.width
        return feed_forward.hidden_units(self.feed_forward.name, self.width)

    def expert_width(self, mixture: Mixture) -> int:
        """The hidden size of one expert."""
        return self.feed_forward_width if mixture.width is None else mixture.width

    @property
    def compute_dtype(self) -> jnp.dtype:
        return jnp.dtype(DTYPES[self.dtype])

    def layer_position(self, index: int) -> PositionScheme:
        """The scheme of layer `index`."""
        return self.pattern[index % len(self.pattern)].position or self.position

    def layer_span(self, index: int) -> Visibility:
        """The visible keys of layer `index`."""
        return self.pattern[index % len(self.pattern)].span or self.span

    def layer_temperature(self, index: int) -> Temperature:
        """The temperature of layer `index`."""
        return self.pattern[index % len(self.pattern)].temperature or self.temperature

    def layer_mixer(self, index: int) -> Mixer:
        """What mixes the tokens of layer `index`."""
        return self.pattern[index % len(self.pattern)].mixer or self.mixer

    def layer_experts(self, index: int) -> Experts:
        """The experts of layer `index`."""
        return self.pattern[index % len(self.pattern)].experts or self.experts

    def has_experts(self) -> bool:
        """Whether a layer is a mixture of experts."""
        return any(isinstance(self.layer_experts(i), Mixture) for i in range(len(self.pattern)))

    def is_random(self) -> bool:
        """Whether training draws numbers: dropout, or positions."""
        return self.dropout > 0 or self.drawn_index() is not None

    def differs_in_training(self) -> bool:
        """Whether training computes anything else than evaluation: it draws numbers, or experts have a capacity."""
        return self.is_random() or self.has_experts()

    def drawn_index(self) -> Index | None:
        """The index transform that draws positions, where a scheme has one."""
        return next((scheme.index for scheme in self.schemes() if scheme.index.draws), None)

    def schemes(self) -> tuple[PositionScheme, ...]:
        """The different schemes of the pattern, in order of first use."""
        return tuple(dict.fromkeys(self.layer_position(i) for i in range(len(self.pattern))))

    def maximum_length(self) -> int | None:
        """The longest sequence that every scheme is defined at, or None without a limit."""
        lengths = [part.maximum_length() for scheme in self.schemes() for part in (scheme, scheme.index)]
        return min((length for length in lengths if length is not None), default=None)

    def require_length(self, field: str, length: int, training: bool = False) -> None:
        """Raises InvalidInput, naming `field`, where a scheme is undefined at `length` tokens."""
        for scheme in self.schemes():
            limit, index = scheme.index.maximum_length(), scheme.index.name
            if limit is not None and length > limit:
                raise invalid(field, length, f"at most {limit}: position.index.name = {index!r} has no more positions")
            limit, more = scheme.maximum_length(), scheme.index.reach(length, training) - length
            if limit is not None and length + more > limit:
                why = f"position.name = {scheme.name!r} is undefined beyond its table"
                if more:
                    why += f" of {limit}, and position.index.name = {index!r} reaches {more} positions further"
                raise invalid(field, length, f"at most {max(limit - more, 0)}: {why}")

    def replace(self, **changes) -> "ModelConfig":
        """A copy with changed fields, validated again."""
        return dataclasses.replace(self, **changes)


def _require_causal(experts: Experts) -> None:
    """Raises InvalidInput where a token's output would depend on later ones."""
    causal = ", ".join(name for name, kind in Experts.registry.items() if kind.causal)
    why = f"{experts.name!r} lets later tokens of a row decide what becomes of earlier ones"
    require(experts.causal, "experts.name", experts.name, f"one of {causal} in a decoder: {why}")


def _require_direction(span: Visibility, scheme: PositionScheme) -> None:
    """Raises InvalidInput where a span shows later keys to what is defined for earlier ones alone."""
    for what, part in (("position.name", scheme), ("position.index.name", scheme.index)):
        known = f"{what} = {part.name!r}, whose formula is of earlier keys alone"
        fits = span.is_causal() or not part.one_sided
        require(fits, "span.name", span.name, f"a span that sees nothing later under {known}")

"""Every refusal names the field, the value and what is allowed; what is left open is derived."""

import pytest

from models.attention import Full, Sliding, Visibility
from models.attention.visibility import And, Or, Prefix
from models.config import FeedForwardConfig, LayerConfig, ModelConfig, NormConfig
from models.errors import InvalidInput
from models.experts import Dropless, ExpertChoice, Experts, NoExperts, Soft, TokenChoice
from models.feed_forward import ACTIVATIONS
from models.mixers import LatentMixer, LinearMixer, SoftmaxMixer
from models.norms import NORMS
from models.placements import Placement
from models.positions import (
    T5,
    ALiBi,
    BaseN,
    DynamicNTK,
    Learned,
    NoPosition,
    PositionScheme,
    Rotary,
    Scaling,
    Sinusoidal,
    XPos,
)
from models.positions.cope import CoPE
from models.positions.deberta import DeBERTa
from models.positions.index import Clipped, Index, Interpolated, LeakyClipped, Randomized, Shifted
from models.positions.shaw import Shaw
from models.positions.temperature import LogN, Temperature
from tests.models.samples import SCHEMES, TINY

SEVEN = tuple(LayerConfig() for _ in range(7))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 130, "heads": 4}, "heads = 4 … a divisor of width = 130, or head_size must be set"),
        ({"heads": 4, "kv_heads": 3}, "kv_heads = 3 … a divisor of heads = 4"),
        ({"heads": 4, "kv_heads": 8}, "kv_heads = 8 … a divisor of heads = 4"),
        ({"heads": 0}, "heads = 0 … at least 1"),
        ({"kv_heads": 0}, "kv_heads = 0 … at least 1"),
        ({"layers": 0}, "layers = 0 … at least 1"),
        ({"width": -8}, "width = -8 … at least 1"),
        ({"head_size": 0}, "head_size = 0 … at least 1"),
        ({"vocabulary_size": 0}, "vocabulary_size = 0 … at least 1"),
        ({"layers": 6, "pattern": SEVEN}, "pattern = '7 layers' … 1 to 6 layers"),
        ({"pattern": ()}, "pattern = '0 layers' … 1 to 4 layers"),
        ({"embeddings": "shared"}, "embeddings = 'shared' … one of tied, separate"),
        ({"dropout": 1.0}, "dropout = 1.0 … at least 0 and below 1"),
        ({"dropout": -0.1}, "dropout = -0.1 … at least 0 and below 1"),
        ({"logit_soft_cap": -1.0}, "logit_soft_cap = -1.0 … a finite number of at least 0 (0 is off)"),
        ({"logit_soft_cap": float("inf")}, "logit_soft_cap = inf … a finite number of at least 0 (0 is off)"),
        ({"dtype": "float16"}, "dtype = 'float16' … one of float32, bfloat16"),
        ({"layer_loop": "for"}, "layer_loop = 'for' … one of scan, unroll"),
        ({"rematerialize": "all"}, "rematerialize = 'all' … one of none, dots, full"),
        ({"attention": "flash"}, "attention = 'flash' … one of auto, reference, blockwise, fused"),
        ({"width": 60}, "head_size = 15 … even for rotary positions"),
        (
            {"width": 60, "position": NoPosition(), "pattern": (LayerConfig(Rotary()),)},
            "head_size = 15 … even for rotary positions",
        ),
        ({"width": 9, "heads": 3, "position": Sinusoidal()}, "width = 9 … even for sinusoidal positions"),
        (
            {"width": 12, "position": NoPosition(), "pattern": (LayerConfig(BaseN(kind="sinusoidal")),)},
            "width = 12 … a multiple of 8, two per digit, for sinusoidal digits",
        ),
    ],
)
def test_a_model_refuses(fields, message):
    with pytest.raises(InvalidInput) as refused:
        ModelConfig(**fields)
    assert str(refused.value) == message.replace("…", "is not allowed; it must be")


LINEAR = LayerConfig(mixer=LinearMixer())
FIT_LINEAR = (
    "one of base_n, rope, learned, none, sinusoidal under mixer.name = 'linear', with frequencies and distances that "
    "no query changes"
)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"position": ALiBi(), "mixer": LinearMixer()},
            f"position.name = 'alibi' … {FIT_LINEAR}",
        ),
        (
            {"position": Rotary(scaling=DynamicNTK(original_length=4)), "pattern": (LayerConfig(), LINEAR)},
            f"position.name = 'rope' … {FIT_LINEAR}",
        ),
        (
            {"span": Sliding(4), "pattern": (LayerConfig(), LINEAR)},
            "span.name = 'sliding' … full under mixer.name = 'linear', which forgets no key",
        ),
        (
            {"temperature": LogN(), "mixer": LinearMixer()},
            "temperature.name = 'log_n' … none under mixer.name = 'linear', whose weights a factor does not change",
        ),
        ({"mixer": LatentMixer(rotary_size=3)}, "mixer.rotary_size = 3 … even for rotary positions"),
        (
            {"mixer": LatentMixer(rotary_size=5), "position": XPos()},
            "mixer.rotary_size = 5 … even for rotary positions",
        ),
        (
            {"mixer": LatentMixer(rotary_size=6), "position": Rotary(share=0.5)},
            "share = 0.5 … such that int(share · mixer.rotary_size), of 6 here, is even and at least 2, not 3",
        ),
    ],
)
def test_a_mixer_refuses_what_it_cannot_honour(fields, message):
    with pytest.raises(InvalidInput) as refused:
        ModelConfig(**fields)
    assert str(refused.value) == message.replace("…", "is not allowed; it must be")


@pytest.mark.parametrize("scheme", [CoPE(), DeBERTa(), Shaw()])
def test_latent_attention_refuses_schemes_that_learn_vectors_of_heads(scheme):
    message = (
        f"^position.name = '{scheme.name}' is not allowed; it must be one of alibi, .* under mixer.name = 'latent'$"
    )
    with pytest.raises(InvalidInput, match=message) as refused:
        ModelConfig(position=scheme, mixer=LatentMixer())
    assert not {"cope", "deberta", "shaw"} & set(str(refused.value).replace(",", " ").split())


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        (
            SoftmaxMixer,
            {"query_key_norm": "l2"},
            "query_key_norm = 'l2' … one of " + ", ".join(dict.fromkeys(("none", *NORMS))),
        ),
        (SoftmaxMixer, {"sink": "first"}, "sink = 'first' … one of none, learned"),
        (SoftmaxMixer, {"soft_cap": -1.0}, "soft_cap = -1.0 … a finite number of at least 0 (0 is off)"),
        (LatentMixer, {"rank": 0}, "rank = 0 … at least 1"),
        (LatentMixer, {"query_rank": -1}, "query_rank = -1 … at least 0 (0 is none)"),
        (LinearMixer, {"feature_map": "exp"}, "feature_map = 'exp' … one of elu_plus_1, relu"),
        (LinearMixer, {"chunk": 0}, "chunk = 0 … at least 1"),
        (FeedForwardConfig, {"name": "mish"}, "name = 'mish' … one of " + ", ".join(ACTIVATIONS)),
        (FeedForwardConfig, {"width": 0}, "width = 0 … at least 1"),
        (NormConfig, {"name": "batch"}, "name = 'batch' … one of " + ", ".join(NORMS)),
        (NormConfig, {"epsilon": 0.0}, "epsilon = 0.0 … above 0"),
    ],
)
def test_its_parts_refuse(part, fields, message):
    with pytest.raises(InvalidInput) as refused:
        part(**fields)
    assert str(refused.value) == message.replace("…", "is not allowed; it must be")


@pytest.mark.parametrize(
    "registry",
    [
        PositionScheme.registry,
        Scaling.registry,
        Index.registry,
        Temperature.registry,
        Visibility.registry,
        Experts.registry,
        NORMS,
        Placement.registry,
    ],
)
def test_an_unknown_name_is_answered_with_the_known_ones(registry):
    with pytest.raises(InvalidInput) as refused:
        registry["nonesuch"]
    assert str(refused.value).startswith(f"{registry.family} = 'nonesuch' is not allowed; it must be one of ")
    assert all(name in str(refused.value) for name in registry)


def test_what_is_left_open_is_derived():
    config = ModelConfig(width=96, heads=6)
    assert (config.key_heads, config.head_width, config.feed_forward_width) == (6, 16, 384)
    gated = config.replace(feed_forward=FeedForwardConfig("swiglu"), kv_heads=1, head_size=10)
    assert (gated.key_heads, gated.head_width, gated.feed_forward_width) == (1, 10, 256)
    assert config.replace(width=130, head_size=8).head_width == 8
    assert config.replace(feed_forward=FeedForwardConfig("geglu", 100)).feed_forward_width == 100
    with pytest.raises(InvalidInput, match=r"^vocabulary_size = None is not allowed; it must be a number of tokens$"):
        _ = config.vocabulary


def test_the_pattern_repeats_and_falls_back_on_the_model():
    config = ModelConfig(
        layers=5, position=ALiBi(), span=Sliding(8), pattern=(LayerConfig(), LayerConfig(NoPosition(), Full()))
    )
    assert [config.layer_position(i).name for i in range(5)] == ["alibi", "none", "alibi", "none", "alibi"]
    assert [config.layer_span(i).name for i in range(5)] == ["sliding", "full", "sliding", "full", "sliding"]
    assert config.schemes() == (ALiBi(), NoPosition())
    assert ModelConfig(position=ALiBi()).schemes() == (ALiBi(),)


def test_schemes_without_parts_of_the_width_take_any():
    for scheme in (BaseN(), Learned(), NoPosition()):
        ModelConfig(width=9, heads=3, position=scheme)


def test_two_tables_of_one_kind_are_refused():
    with pytest.raises(InvalidInput, match="two schemes 'learned' with tables"):
        ModelConfig(position=Learned(length=64), pattern=(LayerConfig(), LayerConfig(Learned(length=32))))


def test_an_index_transform_must_fit_its_scheme():
    for scheme, message in (
        (NoPosition(index=Clipped()), "'clipped' changes distances, which position.name = 'none' cannot take"),
        (Sinusoidal(index=Clipped()), "it takes transforms of positions"),
        (Learned(index=Interpolated(factor=2.0)), "'interpolated' changes positions to fractions"),
        (T5(index=LeakyClipped()), "'leaky_clipped' changes distances to fractions"),
        (Rotary(index=Clipped(), scaling=DynamicNTK()), "whose frequencies change with the length"),
    ):
        with pytest.raises(InvalidInput, match=message):
            ModelConfig(position=scheme)
    drawing = tuple(LayerConfig(Rotary(index=index)) for index in (Randomized(), Shifted()))
    with pytest.raises(InvalidInput, match="one way of drawing for all layers"):
        ModelConfig(pattern=drawing)


def test_a_table_must_hold_what_an_index_transform_reaches():
    shifted = ModelConfig(position=Learned(length=64, index=Shifted(maximum=32)))
    shifted.require_length("train.length", 32, training=True)
    shifted.require_length("evaluate.length", 64)
    with pytest.raises(InvalidInput, match=r"train.length = 33 .* at most 32: .* of 64, and .* 32 positions further"):
        shifted.require_length("train.length", 33, training=True)
    with pytest.raises(InvalidInput, match=r"at most 40: position.index.name = 'randomized' has no more positions"):
        ModelConfig(position=Rotary(index=Randomized(maximum=40))).require_length("evaluate.length", 41)


def test_lengths_beyond_a_table_are_refused_by_name():
    config = ModelConfig(position=Learned(length=64), pattern=(LayerConfig(), LayerConfig(BaseN(base=2, digits=5))))
    assert config.maximum_length() == 32 and ModelConfig().maximum_length() is None
    config.require_length("evaluate.length", 32)
    ModelConfig().require_length("evaluate.length", 10**9)
    message = "evaluate.length = 33 is not allowed; it must be at most 32: position.name = 'base_n' is undefined"
    with pytest.raises(InvalidInput) as refused:
        config.require_length("evaluate.length", 33)
    assert str(refused.value).startswith(message)


ONE_SIDED = {name: "position.name" for name in ("alibi", "alibi leaky_clipped", "xpos", "cope", "forgetting")} | {
    "rope dual_chunk": "position.index.name"
}


@pytest.mark.parametrize("span", [Prefix(8), Or((Sliding(3), Prefix(8)))], ids=["prefix", "or"])
@pytest.mark.parametrize("name", SCHEMES)
def test_a_span_that_sees_ahead_refuses_formulas_of_earlier_keys_alone(name, span):
    scheme = SCHEMES[name]
    for fields in (
        {"position": scheme, "span": span},
        {"pattern": (LayerConfig(), LayerConfig(position=scheme, span=span))},
    ):
        if name not in ONE_SIDED:
            TINY.replace(**fields)
            continue
        with pytest.raises(InvalidInput) as refused:
            TINY.replace(**fields)
        one = scheme.name if ONE_SIDED[name] == "position.name" else scheme.index.name
        assert str(refused.value) == (
            f"span.name = {span.name!r} is not allowed; it must be a span that sees nothing later under "
            f"{ONE_SIDED[name]} = {one!r}, whose formula is of earlier keys alone"
        )


def test_what_of_earlier_keys_alone_is_allowed_beside_a_span_that_sees_ahead():
    elsewhere = (LayerConfig(position=ALiBi(), span=Full()), LayerConfig(position=Rotary(), span=Prefix(8)))
    ModelConfig(pattern=elsewhere)
    ModelConfig(position=ALiBi(), span=And((Sliding(3), Prefix(8))))


def test_experts_are_of_the_model_or_of_a_layer():
    mixed = ModelConfig(layers=5, pattern=(LayerConfig(), LayerConfig(experts=Dropless())))
    assert [mixed.layer_experts(i).name for i in range(4)] == ["none", "dropless"] * 2
    assert mixed.has_experts() and mixed.differs_in_training() and not mixed.is_random()
    plain = ModelConfig(pattern=(LayerConfig(experts=NoExperts()),), experts=TokenChoice())
    assert not plain.has_experts() and not plain.differs_in_training()
    assert mixed.expert_width(Dropless()) == 512 and mixed.expert_width(Dropless(width=64)) == 64


@pytest.mark.parametrize("experts", [ExpertChoice(), Soft()])
def test_experts_that_look_ahead_are_refused(experts):
    for fields in ({"experts": experts}, {"pattern": (LayerConfig(), LayerConfig(experts=experts))}):
        with pytest.raises(InvalidInput) as refused:
            ModelConfig(**fields)
        assert str(refused.value) == (
            f"experts.name = {experts.name!r} is not allowed; it must be one of none, dropless, token_choice in a "
            f"decoder: {experts.name!r} lets later tokens of a row decide what becomes of earlier ones"
        )


def test_configurations_are_keys_and_changes_are_validated():
    assert len({ModelConfig(), ModelConfig(), ModelConfig(layers=2)}) == 2
    with pytest.raises(InvalidInput, match=r"^kv_heads = 3"):
        ModelConfig().replace(kv_heads=3)

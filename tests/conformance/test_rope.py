"""Rotary frequencies and xPos against values and functions that others published, and where those disagree."""

import json
import math
import pathlib
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.positions.hugging_face import ROPE_TYPES, frequencies_from_hugging_face, rotary_to_hugging_face
from models.positions.rotary import Rotary
from models.positions.scaling import DynamicNTK, LongRoPE, MixedNTK, Scaling, YaRN
from models.positions.scheme import Tile
from models.positions.xpos import XPos
from tests.conformance.rows import names
from tests.models.samples import compiled, filled, random, tokens_at

GOLDENS = pathlib.Path(__file__).parent.parent / "goldens"
CASES = json.loads((GOLDENS / "rope_frequencies.json").read_text())["cases"]


def test_every_case_of_every_type_is_there():
    kinds = [case["parameters"]["rope_type"] for case in CASES]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(ROPE_TYPES, 6)


@pytest.mark.parametrize("kind", names("rope_type", ROPE_TYPES, "golden values of transformers 5.23"))
def test_frequencies_are_those_of_transformers(conforms, kind):
    for case in CASES:
        if case["parameters"]["rope_type"] == kind:
            frequencies, attention_factor = frequencies_from_hugging_face(
                case["parameters"], case["head_dim"], case["original_length"], case["sequence_length"]
            )
            conforms(frequencies, case["inverse_frequencies"], tolerance=1e-6, each=True)
            conforms([attention_factor], [case["attention_factor"]], tolerance=1e-6)


def frequencies_of_transformers(parameters, head_dim: int, maximum: int, length: int | None):
    """Inverse frequencies and attention factor by the functions that transformers' models call, in double precision:
    in single precision they are themselves off by more than 1e-6 where a ramp is steep."""
    import torch
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding

    config = LlamaConfig(
        hidden_size=head_dim * 2,
        num_attention_heads=2,
        head_dim=head_dim,
        max_position_embeddings=maximum,
        rope_parameters=dict(parameters),
    )
    functions = {"default": GPTNeoXRotaryEmbedding.compute_default_rope_parameters, **ROPE_INIT_FUNCTIONS}
    with (
        mock.patch.multiple(torch, float=torch.float64, float32=torch.float64),
        mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        frequencies, attention_factor = functions[parameters["rope_type"]](config, None, seq_len=length)
    assert frequencies.dtype == torch.float64
    return frequencies.numpy(), attention_factor


@st.composite
def cases(draw, kind: str):
    """Parameters, head size, maximum and current length, with what is optional sometimes there, None or 0."""
    head_dim, share = draw(st.sampled_from([16, 32, 64, 80, 128])), draw(st.sampled_from([None, 0.25, 0.5, 0.75, 1.0]))
    maximum = draw(st.sampled_from([64, 512, 4096, 131072]))
    length = draw(st.none() | st.sampled_from([1, maximum // 2, maximum, maximum + 1, 3 * maximum]))
    parameters = {"rope_type": kind, "rope_theta": draw(st.sampled_from([500.0, 1e4, 1e6]))}
    if share is not None:
        parameters["partial_rotary_factor"] = share
    if kind not in ("default", "longrope"):
        parameters["factor"] = draw(st.floats(1.0, 64.0))
    if kind in ("yarn", "longrope", "llama3"):
        original = draw(st.none() | st.sampled_from([32, maximum // 2, maximum]))
        if original is not None:
            parameters["original_max_position_embeddings"] = original
    if kind == "llama3":
        parameters |= {"low_freq_factor": draw(st.floats(0.5, 2.0)), "high_freq_factor": draw(st.floats(4.0, 32.0))}
    options = {}
    if kind == "yarn":
        weight = st.sampled_from([None, 0, 0.707, 1.0, 2.0])
        options = {"mscale": weight, "mscale_all_dim": weight, "attention_factor": st.none() | st.floats(0.5, 2.0)}
        options |= {"truncate": st.booleans(), "beta_fast": st.sampled_from([None, 0, 16.0, 64.0])}
        options |= {"beta_slow": st.sampled_from([None, 0, 0.5, 2.0]), "factor": st.none() | st.floats(1.0, 64.0)}
        if parameters.get("original_max_position_embeddings") is None:
            del options["factor"]
    if kind == "longrope":
        pairs = int(head_dim * (share or 1.0)) // 2
        for name, high in (("short_factor", 2.0), ("long_factor", 64.0)):
            parameters[name] = draw(st.lists(st.floats(1.0, high), min_size=pairs, max_size=pairs))
        options = {"factor": st.none() | st.floats(1.0, 64.0), "attention_factor": st.none() | st.floats(0.5, 2.0)}
    for name, values in options.items():
        if name == "factor" or draw(st.booleans()):
            parameters[name] = draw(values)
    return parameters, head_dim, maximum, length


@pytest.mark.parametrize("kind", names("rope_type", ROPE_TYPES, "transformers rope functions, live"))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])  # it gathers every example
@given(st.data())
def test_frequencies_follow_transformers_everywhere(conforms, kind, data):
    pytest.importorskip("torch")
    pytest.importorskip("transformers", minversion="5")
    case = data.draw(cases(kind))
    wanted, wanted_factor = frequencies_of_transformers(*case)
    frequencies, attention_factor = frequencies_from_hugging_face(*case)
    conforms(frequencies, wanted, tolerance=1e-11, each=True)
    conforms([attention_factor], [wanted_factor], tolerance=1e-12)


@pytest.mark.parametrize("name", names("scaling", Scaling.registry, "transformers reads what is written, live"))
def test_transformers_reads_what_is_written(conforms, name):
    pytest.importorskip("torch")
    pytest.importorskip("transformers", minversion="5")
    lists = {"short_factor": (1.0, 1.25, 1.5, 2.0), "long_factor": (1.5, 2.0, 6.0, 8.0)}
    scaling = filled(Scaling.registry[name], factor=4.0, original_length=256, **lists)
    scheme = Rotary(base=5e5, scaling=scaling, share=0.5)
    for length in (None, 256, 700):
        written = rotary_to_hugging_face(scheme, 16)
        frequencies, attention_factor = frequencies_of_transformers(written, 16, 256, length)
        conforms(scheme.frequencies(16, length), frequencies, tolerance=1e-11, each=True)
        conforms([scaling.amplitude()], [attention_factor], tolerance=1e-12)


# Where published forms disagree.


def test_the_ramp_of_yarns_code_is_not_that_of_its_paper():
    """By up to three times in frequency: Llama 2 at 16 times its length."""
    code, paper = (YaRN(factor=16.0, original_length=4096, ramp=r).frequencies(1e4, 128) for r in ("code", "paper"))
    assert 2.9 < np.maximum(code / paper, paper / code).max() < 3.2
    np.testing.assert_allclose(code[:16], paper[:16], rtol=1e-12)  # both keep these, and interpolate those fully
    np.testing.assert_allclose(code[-16:], paper[-16:], rtol=1e-12)


def test_truncate_moves_the_ramp_of_yarn():
    """By up to half of a frequency, where it is all but interpolated."""
    cut, uncut = (YaRN(factor=16.0, original_length=4096, truncate=t).frequencies(1e4, 128) for t in (True, False))
    assert 0.5 < np.abs(cut / uncut - 1).max() < 0.6


def test_one_of_the_weights_is_no_pair():
    """DeepSeek's own code takes an absent weight of the denominator for 0, a temperature of 1 there."""
    parameters = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 40.0, "mscale": 0.707}
    _, attention_factor = frequencies_from_hugging_face(parameters, 64, 4096)
    assert attention_factor == pytest.approx(0.1 * math.log(40) + 1)
    assert abs(attention_factor - (0.0707 * math.log(40) + 1)) > 0.1


def test_one_length_for_a_whole_text_rotates_its_early_queries_otherwise():
    """Transformers gives all tokens of a call the frequencies of its length; here every query has those of its own."""
    rule = DynamicNTK(original_length=64, round_to=1)
    own, whole = (rule.at_length(length).frequencies(1e4, 32) for length in (100, 512))
    assert (whole[1:] < own[1:]).all() and whole[-1] == pytest.approx(own[-1] * 100 / 512)
    lists = LongRoPE(original_length=64, long_factor=(4.0,))
    assert lists.current_length(jnp.array([10, 511])).tolist() == [64, 65]


def test_mixed_ntk_has_two_published_exponents():
    """0.625 in Su's article, 0.75 in code that was released with it."""
    article, code = (MixedNTK(factor=12.0, exponent=e).frequencies(1e4, 128) for e in (0.625, 0.75))
    assert np.abs(code / article - 1).max() > 0.05
    assert code[-1] == pytest.approx(article[-1])


# xPos.


@pytest.mark.conformance("position xpos", reference="x-transformers xPos, live")
def test_xpos_is_that_of_x_transformers(conforms):
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("x_transformers.x_transformers")
    length, size = 700, 32
    q, k = random(1, 2, length, size), random(1, 2, length, size, seed=1)
    angles, scale = reference.RotaryEmbedding(size, use_xpos=True)(torch.arange(length))
    turned_q, turned_k = (
        reference.apply_rotary_pos_emb(torch.tensor(np.asarray(x)), angles, power)
        for x, power in ((q, scale), (k, scale**-1))
    )
    wanted = np.tril((turned_q.double() @ turned_k.double().transpose(-1, -2)).numpy())
    scheme, tokens = XPos(layout="interleaved"), tokens_at([range(length)])

    @compiled
    def evaluate(q, k):
        q, k = (jnp.swapaxes(scheme.rotate(jnp.swapaxes(x, 1, 2), tokens.position), 1, 2) for x in (q, k))
        return scheme.score({}, Tile(q, k, tokens, tokens))

    conforms(np.tril(evaluate(q, k)), wanted, tolerance=1e-5)

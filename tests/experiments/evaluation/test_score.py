"""Scores of windows against a forward pass per window, written out."""

import dataclasses
import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.evaluation.score import score_windows
from experiments.evaluation.windows import final_windows, sliding_windows
from models.config import ModelConfig
from models.positions import PositionScheme
from models.positions.scheme import contiguous_tokens
from models.transformer import Transformer, init_parameters, to_logits
from tests.devices import run_on_devices

LENGTH = 8
MODEL = ModelConfig(vocabulary_size=11, layers=1, width=16, heads=2)
generator = np.random.default_rng(0)
# One that windows divide, one that they do not, one shorter than a window, and one of a single token to score.
DOCUMENTS = [generator.integers(0, 11, size).astype(np.int32) for size in (17, 22, 5, 2)]


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Compiling is most of the time here, and unoptimized machine code computes the same."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@functools.partial(jax.jit, static_argnums=0)
def forward(model, parameters, inputs_1xL):
    """Log-probabilities of the next token, float32 [L, vocabulary]."""
    hidden, _ = Transformer(model).apply({"params": parameters}, inputs_1xL, contiguous_tokens(inputs_1xL.shape[1]))
    return jax.nn.log_softmax(to_logits(model, parameters, hidden)[0].astype(jnp.float32))


@functools.partial(jax.jit, static_argnums=0)
def initial(model):
    return nn.meta.unbox(init_parameters(model, 1))


def directly(model, parameters, document, window):
    """Nats of a window's scored targets, from one forward pass over its inputs alone."""
    log_probabilities = forward(model, parameters, document[None, window.start : window.stop])
    targets = document[window.start + 1 : window.stop + 1]
    return -np.asarray(log_probabilities)[np.arange(len(targets)), targets][window.scored - window.start :]


def all_windows(stride):
    return [
        window
        for index, document in enumerate(DOCUMENTS)
        for window in sliding_windows(index, len(document) - 1, LENGTH, stride)
    ]


@pytest.mark.parametrize(("scheme", "stride"), [("rope", LENGTH), ("alibi", 3)])
def test_scores_are_those_of_a_forward_pass_per_window(scheme, stride):
    model = dataclasses.replace(MODEL, position=PositionScheme.registry[scheme]())
    parameters = initial(model)
    windows = all_windows(stride)
    scores = score_windows(model, parameters, DOCUMENTS, windows, LENGTH, batch_tokens=3 * LENGTH)
    assert sum(map(len, scores)) == sum(len(document) - 1 for document in DOCUMENTS)
    for window, score in zip(windows, scores, strict=True):
        expected = directly(model, parameters, DOCUMENTS[window.document], window)
        np.testing.assert_allclose(score, expected, rtol=1e-5, atol=1e-5)


def test_final_windows_are_scored_under_their_own_context():
    parameters = initial(MODEL)
    for context, windows in final_windows(0, len(DOCUMENTS[0]) - 1, (LENGTH, LENGTH // 2), 2, LENGTH).items():
        scores = score_windows(MODEL, parameters, DOCUMENTS, windows, context, batch_tokens=LENGTH)
        assert len(scores) == 2
        for window, score in zip(windows, scores, strict=True):
            expected = directly(MODEL, parameters, DOCUMENTS[0], window)
            np.testing.assert_allclose(score, expected, rtol=1e-5, atol=1e-5)


THREE_DEVICES = """
import jax, json
import numpy as np
from experiments.evaluation import score
from tests.experiments.evaluation.test_score import DOCUMENTS, LENGTH, MODEL, all_windows, initial

inputs = []
nats = score._nats
score._nats = lambda *arguments: inputs.append(arguments[3]) or nats(*arguments)
scores = score.score_windows(MODEL, initial(MODEL), DOCUMENTS, all_windows(LENGTH), LENGTH, batch_tokens=LENGTH)
assert all(len(x.sharding.device_set) == 3 and x.addressable_shards[0].data.shape == (1, LENGTH) for x in inputs)
print(json.dumps([each.tolist() for each in scores]))
"""


def test_windows_are_shared_out_to_all_devices():
    printed = run_on_devices(3, THREE_DEVICES)
    expected = score_windows(MODEL, initial(MODEL), DOCUMENTS, all_windows(LENGTH), LENGTH, batch_tokens=3 * LENGTH)
    for score, alone in zip(json.loads(printed), expected, strict=True):
        np.testing.assert_allclose(score, alone, rtol=1e-5, atol=1e-5)

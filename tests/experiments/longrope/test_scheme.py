"""Candidates as arrays: scored as LongRoPE's configuration scores them, by one compiled program for all."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from experiments.evaluation import score
from experiments.evaluation.windows import Window
from experiments.longrope.evolution import Candidate
from experiments.longrope.scheme import holding, searchable, start_candidates, with_candidates
from experiments.longrope.scoring import choose_passages
from models.config import LayerConfig, ModelConfig
from models.errors import InvalidInput
from models.positions import ALiBi, NoPosition, Rotary, YaRN
from models.positions.scaling import LongRoPE
from models.transformer import init_parameters
from train.corpora.corpus import Document
from train.store import TokenStore
from train.tokenizers.byte import ByteTokenizer

TRAINED, LENGTH = 8, 20
# A layer without positions among them, and fewer pairs than a head has.
MODEL = ModelConfig(
    vocabulary_size=11,
    layers=2,
    width=16,
    heads=2,
    position=Rotary(base=100.0, share=0.75),
    pattern=(LayerConfig(), LayerConfig(position=NoPosition())),
)
CANDIDATES = [Candidate((1.0, 2.0, 3.0)), Candidate((1.5, 1.5, 2.5), 3), Candidate((1.0, 1.0, 1.0), 1)]


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def nats(model, parameters):
    tokens = np.random.default_rng(0).integers(0, 11, LENGTH + 1).astype(np.int32)
    return score.score_windows(model, parameters, [tokens], [Window(0, 0, 0, LENGTH)], LENGTH, LENGTH)[0]


def test_a_candidate_is_scored_as_the_configuration_it_stands_for():
    parameters = nn.meta.unbox(init_parameters(MODEL, 0))
    parameters = jax.tree.map(lambda x: 3 * x, parameters)  # so that positions matter
    searching = with_candidates(MODEL, 2.5, TRAINED)
    before = score._nats._cache_size()
    found = [nats(searching, holding(searching, parameters, one)) for one in CANDIDATES]
    assert score._nats._cache_size() == before + 1
    for candidate, got in zip(CANDIDATES[:2], found[:2], strict=True):
        rule = LongRoPE(2.5, TRAINED, long_factor=candidate.factors, unscaled_tokens=candidate.unscaled_tokens)
        model = MODEL.replace(position=Rotary(base=100.0, share=0.75, scaling=rule))
        np.testing.assert_allclose(got, nats(model, parameters), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found[0][:TRAINED], found[2][:TRAINED])
    assert np.abs(found[0] - found[2])[TRAINED:].max() > 1e-3


def test_the_search_starts_from_interpolation_ntk_and_yarn():
    starts = start_candidates(Rotary(), 64, 8.0, 128)
    assert starts["linear"] == Candidate((8.0,) * 32)
    np.testing.assert_allclose(starts["ntk"].factors, 8.0 ** (np.arange(32) / 31), rtol=1e-12)
    yarn = 10000.0 ** -(np.arange(0, 64, 2) / 64) / YaRN(8.0, 128).frequencies(10000.0, 64)
    np.testing.assert_allclose(starts["yarn"].factors, yarn, rtol=1e-12)
    assert yarn[0] == 1 and yarn[-1] == pytest.approx(8)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"position": ALiBi()}, "model.position = 'alibi': the search is for rotary positions"),
        ({"position": Rotary(scaling=YaRN(2.0, 8))}, "model.position = 'rope' under 'yarn': the search is"),
        ({"pattern": (LayerConfig(position=Rotary(base=5.0)), LayerConfig())}, "model.pattern has rotary positions"),
    ],
)
def test_a_model_that_has_nothing_to_search_for(changes, words):
    with pytest.raises(InvalidInput, match=words):
        searchable(MODEL.replace(**changes))


def test_passages_are_of_documents_that_hold_one(tmp_path):
    documents = [Document(str(size), "x" * size) for size in (5, 30, 12, 40)]
    store = TokenStore.build(tmp_path, documents, ByteTokenizer())
    passages = choose_passages(store, 20, 3, seed=0)
    assert sorted(set(passages.documents)) == ["30", "40"] and [len(one) for one in passages.tokens] == [21] * 3
    with pytest.raises(InvalidInput, match="holds 51 tokens, the longest has 41: a smaller --factor is needed"):
        choose_passages(store, 50, 3, seed=0)

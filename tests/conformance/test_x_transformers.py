"""CoPE and the forgetting gates against x-transformers, where it is installed."""

import jax.numpy as jnp
import numpy as np
import pytest

from models.attention import AttentionRule, Full
from models.positions.cope import CoPE
from models.positions.forgetting import Forgetting
from models.positions.scheme import Tile, dot_product
from tests.models.samples import compiled, random, tokens_at

HEADS, LENGTH, SIZE, WIDTH = 3, 20, 8, 6
TOKENS = tokens_at(np.arange(LENGTH)[None])
CAUSAL = np.tril(np.ones((LENGTH, LENGTH), bool))


@pytest.mark.conformance("position cope", reference="x-transformers CoPE, live")
def test_cope(conforms):
    torch, theirs = pytest.importorskip("torch"), pytest.importorskip("x_transformers.x_transformers")
    scheme, table = CoPE(max_position=5), random(6, SIZE, seed=2)
    q, k = (random(1, HEADS, LENGTH, SIZE, seed=seed) for seed in (0, 1))
    scaled = q / np.float32(np.sqrt(SIZE))
    scores = dot_product(Tile(scaled, k, TOKENS, TOKENS))
    module = theirs.CoPE(dim=SIZE, heads=HEADS, max_pos=6)
    module.pos_emb.data = torch.tensor(np.asarray(table))
    masked = torch.tensor(np.where(CAUSAL, scores, -1e30))
    with torch.no_grad():
        wanted = module(torch.tensor(np.asarray(q)), masked).numpy()
    logits, _ = compiled(AttentionRule(scheme, Full()).logits)(
        {"embedding": table}, scaled, k, TOKENS, TOKENS, jnp.asarray(CAUSAL)[None], jnp.zeros((1, HEADS, LENGTH))
    )
    conforms((logits - scores) * CAUSAL, wanted * CAUSAL, tolerance=1e-5)


@pytest.mark.conformance("position forgetting", reference="x-transformers DataDependentAlibi, live")
def test_forgetting(conforms):
    torch, theirs = pytest.importorskip("torch"), pytest.importorskip("x_transformers.x_transformers")
    module = theirs.DataDependentAlibi(dim=WIDTH, heads=HEADS)
    linear, x = module.to_forget_gates[0], random(1, LENGTH, WIDTH)
    with torch.no_grad():
        wanted = module(torch.tensor(np.asarray(x))).numpy()
    weight, bias = (jnp.asarray(p.detach().numpy()) for p in (linear.weight, linear.bias))
    before = {name: jnp.zeros((1, HEADS)) for name in ("coarse", "fine")}
    features = compiled(Forgetting().features)({"gate": weight.T, "gate_bias": bias}, x, TOKENS, before)
    tokens, vectors = TOKENS.replace(features=features), jnp.zeros((1, HEADS, LENGTH, 1))
    nothing = jnp.zeros((1, HEADS, LENGTH, LENGTH))
    got = Forgetting().change_logits({}, nothing, Tile(vectors, vectors, tokens, tokens))
    conforms(got * CAUSAL, wanted * CAUSAL, tolerance=1e-5)

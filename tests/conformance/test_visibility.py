"""Masks of every span against the sets that the papers define, and against transformers' own mask functions."""

import numpy as np
import pytest

from models.attention.visibility import (
    And,
    BlockSparse,
    Chunked,
    Dilated,
    Full,
    GlobalTokens,
    Or,
    Prefix,
    Sinks,
    Sliding,
    Strided,
    visible,
)
from models.positions.scheme import contiguous_tokens
from tests.conformance.rows import names

LENGTH = 41
TOKENS = range(LENGTH)


def got(span):
    row = contiguous_tokens(LENGTH)
    return np.asarray(visible(span, row, row)[0])


def of_sets(sets):
    """The mask in which query i sees the keys in the i-th set."""
    mask = np.zeros((LENGTH, LENGTH), bool)
    for i, keys in enumerate(sets):
        mask[i, sorted(keys)] = True
    return mask


@pytest.mark.conformance("span sliding", reference="Jiang et al. 2023, Mistral 7B, section 2: a rolling cache")
@pytest.mark.parametrize("window", [1, 2, 7, 40, 41, 90])
def test_sliding(conforms, window):
    """The `window` entries of a rolling cache that forgets its oldest one (Mistral 7B, section 2)."""
    cache, sets = [], []
    for i in TOKENS:
        cache = [*cache, i][-window:]
        sets.append(set(cache))
    conforms(got(Sliding(window)), of_sets(sets), tolerance=0)


@pytest.mark.conformance("span sinks", reference="StreamingLLM, section 3.2, and LM-Infinite, section 4")
@pytest.mark.parametrize(("window", "sinks"), [(1, 1), (4, 4), (9, 2), (2, 13), (90, 4), (5, 90)])
def test_sinks(conforms, window, sinks):
    """StreamingLLM, section 3.2: of a full cache, the oldest entry after the sinks goes."""
    cache, sets = [], []
    for i in TOKENS:
        cache = [*cache, i]
        if len(cache) > sinks + window:
            del cache[sinks]
        sets.append(set(cache))
    conforms(got(Sinks(window, sinks)), of_sets(sets), tolerance=0)
    # LM-Infinite, section 4: the branch of the first tokens and the branch of the nearest ones.
    branches = [{j for j in range(i + 1) if j < sinks or i - j < window} for i in TOKENS]
    conforms(got(Sinks(window, sinks)), of_sets(branches), tolerance=0)


@pytest.mark.conformance("span dilated", reference="Beltagy et al. 2020, Longformer, section 3.1")
@pytest.mark.parametrize(("window", "dilation"), [(1, 1), (5, 1), (5, 2), (4, 7), (1, 9), (90, 3)])
def test_dilated(conforms, window, dilation):
    """Longformer, section 3.1: gaps of size `dilation`."""
    sets = [{i - step * dilation for step in range(window) if step * dilation <= i} for i in TOKENS]
    conforms(got(Dilated(window, dilation)), of_sets(sets), tolerance=0)


@pytest.mark.conformance("span strided", reference="Child et al. 2019, strided")
@pytest.mark.parametrize("stride", [1, 2, 6, 7, 40, 90])
def test_strided(conforms, stride):
    """Sparse Transformers, strided: A¹ = {t … i} with t = max(0, i - l); A² = {j : (i - j) mod l = 0}."""
    first = [set(range(max(0, i - stride), i + 1)) for i in TOKENS]
    second = [{j for j in range(i + 1) if (i - j) % stride == 0} for i in TOKENS]
    conforms(got(Strided(stride)), of_sets(map(set.union, first, second)), tolerance=0)


@pytest.mark.conformance("span block_sparse", reference="Child et al. 2019, fixed")
@pytest.mark.parametrize(("block", "columns"), [(1, 1), (4, 1), (7, 3), (10, 10), (90, 5)])
def test_block_sparse(conforms, block, columns):
    """Sparse Transformers, fixed: A¹ = {j : ⌊j/l⌋ = ⌊i/l⌋}; A² = {j : j mod l in t … l - 1}, t = l - c."""
    first = [{j for j in range(i + 1) if j // block == i // block} for i in TOKENS]
    second = [{j for j in range(i + 1) if j % block in range(block - columns, block)} for i in TOKENS]
    conforms(got(BlockSparse(block, columns)), of_sets(map(set.union, first, second)), tolerance=0)


@pytest.mark.conformance("span global_tokens", "span or", reference="Beltagy et al. 2020, Longformer, section 3.1")
@pytest.mark.parametrize(("count", "window"), [(1, 1), (3, 4), (12, 2), (90, 1)])
def test_global_tokens(conforms, count, window):
    """Longformer, section 3.1: rows and columns of the global tokens are full; here, of what is not later."""
    mask = np.zeros((LENGTH, LENGTH), bool)
    mask[:count, :] = mask[:, :count] = True
    near = np.tri(LENGTH, k=0) - np.tri(LENGTH, k=-window) > 0
    conforms(got(GlobalTokens(count)), (mask & (np.tri(LENGTH) > 0)) | np.eye(LENGTH, dtype=bool), tolerance=0)
    wanted = (mask & (np.tri(LENGTH) > 0)) | near
    conforms(got(Or((Sliding(window), GlobalTokens(count)))), wanted, tolerance=0)


@pytest.mark.conformance("span chunked", reference="Llama 4: each chunk a causal model of its own")
@pytest.mark.parametrize("chunk", [1, 4, 13, 41, 90])
def test_chunked(conforms, chunk):
    """Each chunk a causal model of its own."""
    mask = np.zeros((LENGTH, LENGTH), bool)
    for start in range(0, LENGTH, chunk):
        size = min(chunk, LENGTH - start)
        mask[start : start + size, start : start + size] = np.tri(size)
    conforms(got(Chunked(chunk)), mask, tolerance=0)


@pytest.mark.conformance("span prefix", reference="Raffel et al. 2020, figure 3")
@pytest.mark.parametrize("length", [1, 2, 13, 90])
def test_prefix(conforms, length):
    """T5, figure 3, right: fully visible over the prefix, causal after."""
    mask = np.tri(LENGTH) > 0
    mask[:length, :length] = True
    conforms(got(Prefix(length)), mask, tolerance=0)


@pytest.mark.conformance("span and", "span or", reference="the intersection and the union of masks")
def test_combinations_are_intersections_and_unions(conforms):
    members = (Sinks(9, 2), Chunked(7), Prefix(4))
    conforms(got(And(members)), np.logical_and.reduce([got(span) for span in members]), tolerance=0)
    conforms(got(Or(members)), np.logical_or.reduce([got(span) for span in members]), tolerance=0)
    nested = Or((And(members), Sliding(3)))
    conforms(got(nested), got(And(members)) | got(Sliding(3)), tolerance=0)


def span_and_theirs(name: str, size: int):
    """A span, and the mask function that transformers' models would use for it."""
    torch, masks = pytest.importorskip("torch"), pytest.importorskip("transformers.masking_utils")
    causal = masks.causal_mask_function
    chunked = masks.chunked_causal_mask_function(size, torch.zeros(1, dtype=torch.long))
    near = Sliding(5), Chunked(size)
    match name:
        case "full":
            return Full(), causal
        case "sliding":
            return Sliding(size), masks.sliding_window_causal_mask_function(size)
        case "chunked":
            return Chunked(size), chunked
        case "prefix":
            prefix = masks.blockwise_overlay(torch.where(torch.arange(LENGTH) < size, 0, -1)[None])
            return Prefix(size), masks.or_masks(causal, prefix)
        case "and":
            return And(near), masks.and_masks(masks.sliding_window_overlay(5), chunked)
        case "or":
            return Or(near), masks.or_masks(chunked, masks.sliding_window_causal_mask_function(5))


LIVE = ["full", "sliding", "chunked", "prefix", "and", "or"]


@pytest.mark.parametrize("name", names("span", LIVE, "transformers mask functions, live"))
def test_transformers_masks(conforms, name):
    torch = pytest.importorskip("torch")
    query, key = torch.arange(LENGTH)[:, None], torch.arange(LENGTH)[None, :]
    for size in (1, 4, 13, 41):
        span, function = span_and_theirs(name, size)
        conforms(got(span), np.broadcast_to(function(0, 0, query, key).numpy(), (LENGTH, LENGTH)), tolerance=0)


@pytest.mark.conformance("span chunked", reference="transformers mask functions, live, after left padding")
def test_chunks_after_left_padding_start_where_transformers_starts_them(conforms):
    torch = pytest.importorskip("torch")
    masks = pytest.importorskip("transformers.masking_utils")
    padding, chunk = 3, 8
    query, key = torch.arange(padding, LENGTH)[:, None], torch.arange(padding, LENGTH)[None, :]
    theirs = masks.chunked_causal_mask_function(chunk, torch.tensor([padding]))(0, 0, query, key).numpy()
    conforms(got(Chunked(chunk))[:-padding, :-padding], theirs, tolerance=0)

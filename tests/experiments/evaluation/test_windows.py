"""Windows: every target is scored once, with the context that the protocol promises."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from experiments.evaluation.windows import final_windows, sliding_windows

lengths = st.integers(1, 40)


@given(targets=st.integers(0, 200), length=lengths, data=st.data())
def test_every_target_is_scored_exactly_once_with_the_promised_context(targets, length, data):
    stride = data.draw(st.integers(1, length))
    windows = sliding_windows(3, targets, length, stride)
    scored = [target for window in windows for target in range(window.scored, window.stop)]
    assert scored == list(range(targets))
    for window in windows:
        assert window.document == 3
        assert 0 <= window.start <= window.scored < window.stop <= targets
        assert window.stop - window.start <= length
        if window.scored >= length:  # beyond what the first window reads
            assert window.stop - window.scored <= stride
            if stride < length:
                assert window.scored - window.start >= length - stride
        if stride < length and targets >= length:
            assert window.stop - window.start == length


def test_windows_of_a_length_that_does_not_divide():
    assert [tuple(w) for w in sliding_windows(0, 10, 4, 4)] == [(0, 0, 0, 4), (0, 4, 4, 8), (0, 8, 8, 10)]
    assert [tuple(w) for w in sliding_windows(0, 7, 4, 2)] == [(0, 0, 0, 4), (0, 2, 4, 6), (0, 3, 6, 7)]
    assert [tuple(w) for w in sliding_windows(0, 3, 8, 2)] == [(0, 0, 0, 3)]
    assert sliding_windows(0, 0, 4, 4) == [] and sliding_windows(0, 0, 4, 1) == []


@given(targets=st.integers(0, 200), longest=st.integers(4, 40), final=st.integers(1, 4))
def test_more_context_scores_the_same_final_targets(targets, longest, final):
    contexts = tuple(context for context in (longest, longest // 2) if context >= final)
    groups = final_windows(0, targets, contexts, final, max(contexts))
    assert set(groups) == set(contexts)
    asked = [[(window.scored, window.stop) for window in group] for group in groups.values()]
    assert all(one == asked[0] for one in asked) and len(asked[0]) == targets // longest
    for context, group in groups.items():
        for window in group:
            assert window.stop - window.start == context and window.stop - window.scored == final
    scored = np.concatenate([np.arange(low, high) for low, high in asked[0]] or [np.arange(0)])
    assert len(np.unique(scored)) == len(scored)

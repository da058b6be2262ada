"""The study's answer in a few sentences, computed from its numbers: true for whatever was measured, however little."""

import math
from collections.abc import Sequence

from experiments.report.comparison import left_out, of_one_text, rankable
from experiments.report.equal_context import BYTES, TOKENS, Footing, footings
from experiments.report.extrapolation import Shift, reference_lengths, shift_of
from experiments.report.series import Series, length_curve, protocols, train_lengths
from experiments.report.study import STATUSES, Study
from experiments.report.text import bits, change, count, factor, interval, listing, protocol

STILL = 0.0005  # less than the last decimal that is written: no change
NAMED = 8


def answer(study: Study, series: Sequence[Series]) -> list[str]:
    """Sentences: the comparison, the best, what overrides repair, what sliding windows change, what is not shown.

    Where windows of equal bytes were measured, one sentence sets their best beside that at equal tokens. Series that
    scored other text than the others are left out of all this, those whose tokenizer drops text of what is called best.
    """
    compared, ranked = of_one_text(series), rankable(series)
    reference = reference_lengths(study, compared)
    equal = _equal_context(study, ranked)
    if reference is None:
        return equal or _nothing(study)
    start, end = reference
    name = next(name for name in protocols(compared) if any(length_curve(one, name) for one in compared))
    if start == end:
        sentences = _one_length(ranked, name, end, len(_values(compared, name, end)))
    else:
        shifts = [shift_of(one, name, start, end) for one in compared]
        sentences = _compare(study, [shift for shift in shifts if shift.series.trained], compared, name, start, end)
        sentences += _best(ranked, name, end)
        sentences += _repairs(shifts)
        sentences += _sliding(compared, name, start, end)
    return sentences + equal + left_out(series) + _not_shown(study, series, name, end)


def _nothing(study: Study) -> list[str]:
    states = [(status, sum(point.status == status for point in study.points)) for status in STATUSES]
    parts = [f"{number} {status}" for status, number in states if number]
    if not study.points:
        return ["This study has no points, so there is nothing to compare."]
    return [f"No point of this study has a usable evaluation yet ({listing(parts)}), so there is nothing to compare."]


def _values(series: Sequence[Series], name: str, length: float) -> list[tuple[float, Series]]:
    """(bits per byte, series) at `length`, best first, where it is finite."""
    marks = [(mark, one) for one in series for mark in length_curve(one, name) if mark.x == length]
    return sorted(((mark.y, one) for mark, one in marks if math.isfinite(mark.y)), key=lambda pair: pair[0])


def _reached(one: Series, name: str, length: float) -> str:
    """ "alibi with 2.607 bits per byte (95 % interval 2.41–2.80)", or with its number of seeds."""
    mark = next(mark for mark in length_curve(one, name) if mark.x == length)
    remark = ""
    if mark.runs > 1:
        remark = f" (mean of {mark.runs} seeds, {interval(mark.low, mark.high)})"
    elif mark.low is not None and mark.high is not None:
        remark = f" (95 % interval {interval(mark.low, mark.high)})"
    return f"{one.label} with {bits(mark.y)} bits per byte{remark}"


def _one_length(series: Sequence[Series], name: str, length: float, measured: int) -> list[str]:
    """The best of the series that can be ranked; `measured` counts the others too."""
    values = _values(series, name, length)
    if not values and measured:
        return [f"At {count(length)} tokens, the only length evaluated, no two series can be ranked."]
    if not values:
        return [f"At {count(length)} tokens, the only length evaluated, no series has a finite loss."]
    place = f"At {count(length)} tokens, the only length evaluated ({protocol(name)} windows),"
    best = _reached(values[0][1], name, length)
    if len(values) == 1:
        return [f"{place} the only series {'that can be ranked ' if measured > 1 else ''}is {best}."]
    worst = f"{values[-1][1].label} with {bits(values[-1][0])}"
    return [f"{place} the best of {len(values)} series is {best}; the worst is {worst}."]


def _compare(
    study: Study, shifts: Sequence[Shift], series: Sequence[Series], name: str, start: float, end: float
) -> list[str]:
    known = sorted((shift for shift in shifts if shift.change is not None), key=lambda shift: shift.change or 0.0)
    trained_at = train_lengths(study, [shift.series for shift in known] or series)
    if trained_at == [start]:
        multiple = end / start
        place = f"At {factor(multiple)} the training length ({count(end)} against {count(start)} tokens"
    else:
        place = f"From {count(start)} to {count(end)} tokens (neither is the training length"
        if trained_at:
            known_lengths = listing([count(length) for length in trained_at], "or")
            place = f"From {count(start)} to {count(end)} tokens (trained at {known_lengths}"
    place += f", {protocol(name)} windows),"
    if not known:
        return [f"{place} no series has a number at both lengths."]
    if len(known) > NAMED:
        losing = sum((shift.change or 0.0) >= STILL for shift in known)
        ends = _phrases(known[:2]) + [f"at the other end {phrase}" for phrase in _phrases(known[-1:])]
        return [f"{place} {losing} of {len(known)} series lose quality: {'; '.join(ends)}."]
    return [f"{place} {'; '.join(_phrases(known))}."]


def _phrases(shifts: Sequence[Shift]) -> list[str]:
    """At most three phrases: who gains, who stays, who loses, and how many bits per byte, in the order of `shifts`."""
    gains = [shift for shift in shifts if (shift.change or 0.0) <= -STILL]
    still = [shift for shift in shifts if abs(shift.change or 0.0) < STILL]
    losses = [shift for shift in shifts if (shift.change or 0.0) >= STILL]
    phrases = [_verb("gains", gains)] if gains else []
    if still:
        labels = [shift.series.label + _seeds(shift) for shift in still]
        phrases.append(f"{listing(labels)} {'stays as it was' if len(still) == 1 else 'stay as they were'}")
    return [*phrases, _verb("loses", losses)] if losses else phrases


def _verb(verb: str, shifts: Sequence[Shift]) -> str:
    """ "rope loses 0.314, sinusoidal 0.739 and none 2.454 bits per byte"."""
    first, *others = shifts
    named = [f"{first.series.label}{_seeds(first)} {verb} {bits(abs(first.change or 0.0))}"]
    named += [f"{shift.series.label}{_seeds(shift)} {bits(abs(shift.change or 0.0))}" for shift in others]
    return listing(named) + " bits per byte"


def _seeds(shift: Shift) -> str:
    return f" (mean of {shift.runs} seeds)" if shift.runs > 1 else ""


def _best(series: Sequence[Series], name: str, end: float) -> list[str]:
    values = _values(series, name, end)
    if len(values) < 2:
        return []
    best, second = _reached(values[0][1], name, end), f"{values[1][1].label} with {bits(values[1][0])}"
    return [f"At {count(end)} tokens the best is {best}, followed by {second}."]


def _repairs(shifts: Sequence[Shift]) -> list[str]:
    """What changing the positions of a trained model repairs of its loss beyond the training length."""
    sentences = []
    for base in shifts:
        if not base.series.trained or base.change is None or base.change < STILL:
            continue
        others = [
            (shift.series.label, (base.to_value or 0.0) - shift.to_value)
            for shift in shifts
            if _under_another_model(shift.series) and shift.series.base == base.series.label
            if shift.to_value is not None
        ]
        if not others:
            continue
        others.sort(key=lambda pair: -pair[1])
        better = [f"{label} repairs {_share(gain / base.change)}" for label, gain in others if gain >= STILL]
        worse = [f"{label} ({change(-gain)})" for label, gain in others if gain <= -STILL]
        still = [label for label, gain in others if abs(gain) < STILL]
        phrases = [listing(better)] if better else []
        if still:
            phrases.append(f"{listing(still)} {'changes' if len(still) == 1 else 'change'} nothing")
        if worse:
            phrases.append(f"{listing(worse)} {'makes' if len(worse) == 1 else 'make'} it worse")
        sentences.append(
            f"Of the {bits(base.change)} bits per byte that {base.series.label} loses, without retraining, "
            f"{'; '.join(phrases)}."
        )
    return sentences


def _under_another_model(one: Series) -> bool:
    """Whether what was overridden is the model alone: neither how it is evaluated nor the step of its checkpoint."""
    changed = {key for evaluation in one.evaluations for key in evaluation.override}
    measured_otherwise = any(key == "step" or key.startswith("evaluation.") for key in changed)
    return any(key.startswith("model.") for key in changed) and not measured_otherwise


def _share(share: float) -> str:
    return "all of it and more" if share > 1.005 else f"{100 * share:.0f} %"


def _sliding(series: Sequence[Series], name: str, start: float, end: float) -> list[str]:
    """How the best change under non-overlapping windows looks under sliding ones."""
    if name != "non_overlapping" or "sliding" not in protocols(series):
        return []
    pairs = [(shift_of(one, name, start, end), shift_of(one, "sliding", start, end)) for one in series if one.trained]
    known = [(plain, sliding) for plain, sliding in pairs if plain.change is not None and sliding.change is not None]
    if not known:
        return []
    gains = [(plain, sliding) for plain, sliding in known if (plain.change or 0.0) <= -STILL]
    if not gains:
        plain, sliding = min(known, key=lambda pair: pair[0].change or 0.0)
        return [
            f"No series gains from windows longer than {count(start)} tokens; under sliding windows, where few tokens "
            f"start cold, {plain.series.label} changes by {change(sliding.change)} instead of {change(plain.change)}."
        ]
    phrases = []
    for plain, sliding in sorted(gains, key=lambda pair: pair[0].change or 0.0)[:3]:
        gain, left = -(plain.change or 0.0), -(sliding.change or 0.0)
        if left >= gain:
            end_of_phrase = f"grows to {bits(left)}"
        elif left >= STILL:
            end_of_phrase = f"shrinks to {bits(left)} ({100 * (1 - left / gain):.0f} % of it vanishes)"
        elif left > -STILL:
            end_of_phrase = "vanishes"
        else:
            end_of_phrase = f"turns into a loss of {bits(-left)}"
        phrases.append(f"the gain of {plain.series.label}, {bits(gain)} in non-overlapping windows, {end_of_phrase}")
    return [f"Under sliding windows, where few tokens start cold, {listing(phrases)}."]


def _equal_context(study: Study, series: Sequence[Series]) -> list[str]:
    """Which series is best in windows of as many tokens, and which in windows of as many bytes of text."""
    winners: dict[str, dict[str, list[str]]] = {TOKENS: {}, BYTES: {}}
    for footing in footings(study, series):
        best = _winner(footing)
        if best is not None:
            place = f"{bits(footing.marks[best].y)} at {count(footing.size)} {footing.unit}"
            winners[footing.unit].setdefault(best, []).append(place)
    if not winners[BYTES]:
        return []
    tokens, by_bytes = ([f"{label} ({listing(places)})" for label, places in winners[u].items()] for u in winners)
    place = "in windows that hold equally many bytes of text"
    if not tokens:
        return [f"I{place[1:]} the best is {listing(by_bytes)}."]
    word = "again " if winners[TOKENS].keys() == winners[BYTES].keys() else ""
    return [f"In windows of equally many tokens the best is {listing(tokens)}, {place} {word}{listing(by_bytes)}."]


def _winner(footing: Footing) -> str | None:
    """The label of the series with the fewest bits per byte, where two or more can be compared."""
    known = [(mark.y, label) for label, mark in footing.marks.items() if math.isfinite(mark.y)]
    return min(known, key=lambda pair: pair[0])[1] if len(known) > 1 else None


def _not_shown(study: Study, series: Sequence[Series], name: str, end: float) -> list[str]:
    sentences = []
    for one in series:
        curve = length_curve(one, name)
        partly = [mark for mark in curve if mark.failed and mark.x == end]
        if partly:
            seeds = f"{partly[0].failed} of {partly[0].runs} seeds"
            sentences.append(f"{seeds} of {one.label} failed at {count(end)} tokens.")
            continue
        reached = [mark.x for mark in curve if math.isfinite(mark.y)]
        if one.evaluations and (not reached or max(reached) < end):
            words = {row.shown_status for evaluation in one.evaluations for row in evaluation.rows if not row.usable}
            state = listing(sorted(words)) or "not evaluated"
            where = f"beyond {count(max(reached))} tokens" if reached else "at every length"
            sentences.append(f"{one.label} is {state} {where}.")
    for status, word in (
        ("failed", "Failed"),
        ("missing", "Missing"),
        ("interrupted", "Interrupted"),
        ("running", "Still running"),
    ):
        labels = list(dict.fromkeys(point.label for point in study.points if point.status == status))
        if labels:
            sentences.append(f"{word}: {listing(labels)}.")
    return sentences

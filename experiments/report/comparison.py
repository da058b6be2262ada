"""Which series may be compared: those that scored the same text, in tokens that keep all of it."""

from collections import Counter
from collections.abc import Sequence

from experiments.report.series import Member, Series
from experiments.report.text import count, listing


def of_one_text(series: Sequence[Series]) -> list[Series]:
    """The series that scored the text which most series as trained scored.

    Where no text is that of more than half of them, as where windows end at so many tokens of different tokenizers,
    those of one tokenizer are held against each other. An evaluation that does not say what it scored fits all.
    """
    told = [(one, _tokenizer(member), text) for one in series for member in one.members if (text := _text(member))]
    own = [(tokenizer, text) for one, tokenizer, text in told if one.trained]
    own = own or [(tokenizer, text) for _, tokenizer, text in told]
    if not own:
        return list(series)
    usual, times = _most([text for _, text in own])
    by_tokenizer = {} if 2 * times > len(own) else {t: _most([text for u, text in own if u == t])[0] for t, _ in own}
    others = {one.label for one, tokenizer, text in told if text != by_tokenizer.get(tokenizer, usual)}
    return [one for one in series if one.label not in others]


def rankable(series: Sequence[Series]) -> list[Series]:
    """The series of which one can be called the best: without those whose tokenizer drops text, unless all share it."""
    compared = of_one_text(series)
    tokenizers = {_tokenizer(member) for one in compared for member in one.members if member.evaluation is not None}
    return [one for one in compared if len(tokenizers) < 2 or not _drops_text(one)]


def comparison_notes(series: Sequence[Series]) -> list[str]:
    """A line each for series of other text, for tokenizers that drop text, for different amounts of text, and for runs
    trained on other text."""
    compared = of_one_text(series)
    notes = []
    others = [one.label for one in series if one not in compared]
    if others:
        verb = "scores" if len(others) == 1 else "score"
        notes.append(f"{listing(others)} {verb} other text than the other series: numbers cannot be compared")
    dropping = [one.label for one in series if one.evaluations and _drops_text(one)]
    if dropping:
        notes.append(
            f"{listing(dropping)}: the tokenizer drops text (not an exact round trip), so its bits per byte are too "
            "low to compare with those of other tokenizers"
        )
    rows = [row for one in compared for evaluation in one.evaluations for row in evaluation.rows]
    sizes = {row.bytes for row in rows if row.usable and row.bytes is not None}
    if len(sizes) > 1:
        notes.append(
            f"The series scored from {count(min(sizes))} to {count(max(sizes))} bytes of text, not all the same: "
            "evaluation.tokens_per_document = 0 scores whole documents"
        )
    trained_on_other = _trained_on_other_text(compared)
    if trained_on_other:
        verb = "was" if len(trained_on_other) == 1 else "were"
        notes.append(
            f"{listing(trained_on_other)} {verb} trained on other text than the other series of the same tokenizer, "
            "which may be what they differ by"
        )
    return notes


def _trained_on_other_text(series: Sequence[Series]) -> list[str]:
    """The labels under which a run was trained on other text than most with its tokenizer."""
    texts: dict[str, list[str]] = {}
    told = []
    for one in series:
        for member in one.members:
            text = member.point.run.provenance.get("data_hash")
            if one.trained and isinstance(text, str):
                texts.setdefault(_tokenizer(member), []).append(text)
                told.append((one.label, _tokenizer(member), text))
    usual = {tokenizer: _most(found)[0] for tokenizer, found in texts.items()}
    return list(dict.fromkeys(label for label, tokenizer, text in told if text != usual[tokenizer]))


def left_out(series: Sequence[Series]) -> list[str]:
    """A sentence on the series that the answer does not compare or rank, where there are any."""
    compared, ranked = of_one_text(series), rankable(series)
    reasons = [(one, "it scores other text") for one in series if one not in compared]
    dropping = [one for one in compared if one not in ranked and one.evaluations]
    reasons += [(one, "its tokenizer drops text") for one in dropping]
    named = [f"{one.label} ({reason})" for one, reason in reasons]
    return [f"Not ranked: {listing(named)}."] if named else []


def _most(texts: Sequence[str]) -> tuple[str, int]:
    """The text that is there most often, the earliest of several, and how often."""
    return Counter(texts).most_common(1)[0]


def _text(member: Member) -> str | None:
    return member.evaluation.text if member.evaluation is not None else None


def _tokenizer(member: Member) -> str:
    return str(member.point.run.provenance.get("tokenizer_hash"))


def _drops_text(one: Series) -> bool:
    reports = [member.point.run.provenance.get("tokenizer_report") for member in one.members]
    return any(isinstance(report, dict) and report.get("lossless") is False for report in reports)

"""An attribution in words: sentences that say no more than the intervals do."""

from collections.abc import Mapping, Sequence
from typing import Any

Values = Mapping[str, Any]

# What is done in an ablation, and what is broken where it helps.
REPAIRS = {
    "clipped": ("Clipping distances", "distances beyond those of training"),
    "log_n": ("Scaling scores by the logarithm of the length", "attention that flattens with length"),
    "clipped_log_n": ("Doing both", "distances and flattening together"),
    "window": ("Seeing the latest tokens alone", "more context than in training"),
    "sinks": ("Seeing the latest and the first tokens alone", "more context than in training"),
}
STILL = 0.0005  # less than the last decimal that is written
PROTOCOL = "sliding"  # has the fewest tokens with little context, whose loss says nothing of the length
MINUS = "\u2212"


def verdict(rows: Sequence[Values], effects: Sequence[Values], trained: int, length: int) -> list[str]:
    """Sentences on `length` tokens, from rows and effects of `attribute`: what is lost under sliding windows, what of
    it each ablation repairs, whether the first tokens matter, and what non-overlapping windows cost. A difference
    counts where its interval excludes 0 and it does not round to 0.000.
    """
    by_name = {row["ablation"]: row for row in rows if row["protocol"] == PROTOCOL}
    by_effect = {effect["effect"]: effect for effect in effects if effect["protocol"] in (None, PROTOCOL)}
    plain, lost = by_name["as_it_is"], by_effect["lost"]
    if lost["difference"] is None:
        missing = plain if plain["status"] != "ok" else by_name["training_length"]
        return [f"The model as it is, at {missing['length']:,} tokens: {missing['status']} ({missing['reason']})."]
    if lost["difference_low"] is None:
        return ["A single document gives no intervals, so no difference can be told from chance."]
    sentences = [_lost(lost, trained, length)]
    for name in REPAIRS:
        sentences.append(_repair(name, by_name[name], lost, trained))
    first = by_effect["first_tokens"]
    if first["difference"] is not None:
        sentences.append(_first_tokens(first))
    if by_effect["windowing"]["difference"] is not None:
        sentences.append(_windowing(by_effect["windowing"], length))
    return sentences


def _lost(lost: Values, trained: int, length: int) -> str:
    sign, where = _sign(lost), f"from {trained:,} to {length:,} tokens (sliding windows)"
    if sign > 0:
        return f"{_bits(lost)} bits per byte are lost {where}."
    if sign < 0:
        return f"Nothing is lost {where}: {_bits(lost, -1)} bits per byte are gained."
    return f"The loss does not change to speak of {where}: {_bits(lost)} bits per byte."


def _repair(name: str, row: Values, lost: Values, trained: int) -> str:
    does, cause = REPAIRS[name]
    if row["difference"] is None:
        return f"{does}: {row['status']} ({row['reason']})."
    sign = _sign(row)
    if sign > 0:
        return f"{does} loses {_bits(row)} bits more."
    if sign == 0:
        return f"{does} changes nothing to speak of: {_bits(row)} bits."
    if _sign(lost) <= 0:
        return f"{does} gains {_bits(row, -1)} bits, though none were lost."
    if -row["difference"] > lost["difference"] - STILL:
        return f"{does} repairs all that is lost beyond {trained:,}, {_bits(row, -1)} bits: {cause}."
    return f"{does} repairs {_bits(row, -1)} of the {lost['difference']:.3f} bits lost beyond {trained:,}: {cause}."


def _first_tokens(effect: Values) -> str:
    sign = _sign(effect)
    if sign > 0:
        return f"In such a window the loss of the first tokens costs {_bits(effect)} bits; keeping them repairs it."
    if sign < 0:
        return f"Such a window is better by {_bits(effect, -1)} bits without the first tokens."
    return f"In such a window the first tokens change nothing to speak of: {_bits(effect)} bits."


def _windowing(effect: Values, length: int) -> str:
    where = f"Non-overlapping windows of {length:,} tokens"
    sign = _sign(effect)
    if sign > 0:
        return f"{where} cost {_bits(effect)} bits more than sliding ones: tokens early in a window."
    if sign < 0:
        return f"{where} cost {_bits(effect, -1)} bits less than sliding ones, which seldom score a token early in one."
    return f"{where} and sliding ones do not differ to speak of: {_bits(effect)} bits."


def _sign(values: Values) -> int:
    """1 or -1 where the interval lies above or below 0, else 0; 0 too for a difference of nothing."""
    if abs(values["difference"]) < STILL:
        return 0
    return int(values["difference_low"] > 0) - int(values["difference_high"] < 0)


def _bits(values: Values, sign: int = 1) -> str:
    """A difference with its interval, as "0.310 (0.250 to 0.370)"; `sign` -1 turns it round."""
    bounds = sorted(sign * values[name] for name in ("difference_low", "difference_high"))
    value, low, high = (_three_decimals(number) for number in (sign * values["difference"], *bounds))
    return f"{value} ({low} to {high})"


def _three_decimals(number: float) -> str:
    text = f"{number:.3f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", MINUS)

"""How the report writes numbers and names: one format per kind of quantity, in figures, tables and sentences alike."""

import math
import unicodedata
from collections.abc import Sequence

ABSENT = "–"
MINUS = "\u2212"


def clean(value: object) -> str:
    """`value` as one line of text that any XML or HTML file can hold: no control characters, no lone surrogates."""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    text = "".join(" " if unicodedata.category(letter) in ("Cc", "Cn") else letter for letter in text)
    return " ".join(text.split())


def shorten(text: str, limit: int) -> str:
    """`text` in at most `limit` characters, its middle left out, because labels of a sweep differ at their ends."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return text[:head] + "…" + text[len(text) - (limit - 1 - head) :]


def _special(value: float | None) -> str | None:
    if value is None:
        return ABSENT
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else MINUS + "∞"
    return None


def bits(value: float | None) -> str:
    """Bits per byte or nats per token: three decimals, as `2.613`."""
    return _special(value) or f"{value:.3f}".replace("-", MINUS)


def change(value: float | None) -> str:
    """A difference of bits per byte with its sign, as `+0.012`; what rounds to nothing has none."""
    special = _special(value)
    if special or value is None:
        return special or ABSENT
    text = f"{value:+.3f}".replace("-", MINUS)
    return "0.000" if text[1:] == "0.000" else text


def interval(low: float | None, high: float | None) -> str:
    """An interval of bits per byte, as `2.41–2.80` with three decimals; absent where a bound is."""
    return ABSENT if low is None or high is None else f"{bits(low)}–{bits(high)}"


def perplexity(value: float | None) -> str:
    """Four significant digits, without an exponent below a million."""
    special = _special(value)
    if special or value is None:
        return special or ABSENT
    if value >= 1e6:
        return f"{value:.2e}"
    return f"{value:,.{max(0, 3 - len(str(int(value))) + 1)}f}"


def count(value: float | None) -> str:
    """A whole number with thousands separated, as `1,024`."""
    return _special(value) or f"{value:,.0f}".replace("-", MINUS)


def ratio(value: float | None) -> str:
    """A plain ratio such as bytes per token: three decimals."""
    return bits(value)


def factor(value: float) -> str:
    """A multiple, as `16×` or `1.5×`."""
    return f"{value:,.1f}".removesuffix(".0") + "×"


def duration(seconds: float | None) -> str:
    """Seconds as `48 s`, `2 min 41 s` or `3 h 07 min`."""
    special = _special(seconds)
    if special or seconds is None:
        return special or ABSENT
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def listing(items: Sequence[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + f" {last} " + items[-1]


PROTOCOLS = {"non_overlapping": "non-overlapping", "sliding": "sliding"}


def protocol(name: str) -> str:
    """How a protocol of evaluation is called in text."""
    return PROTOCOLS.get(name, name.replace("_", " "))

"""What a scaling rule asks for where a context is extended so many times: the one number, under each rule's fields."""

import dataclasses

from models.positions.scaling import LongRoPE, Scaling


def extended(name: str, factor: float) -> Scaling:
    """The rule `name` for a context of `factor` ≥ 1 times the original length, which is left to be filled in.

    A rule that follows the length by itself needs no factor. LongRoPE's lists come from a search on a checkpoint;
    without one, every frequency is divided by `factor` beyond the original length and by 1 within it.
    """
    rule = Scaling.registry[name]
    if rule is LongRoPE:
        return LongRoPE(factor=factor, long_factor=(factor,))
    if rule.depends_on_length or "factor" not in {field.name for field in dataclasses.fields(rule)}:
        return rule()
    return rule(factor=factor)


def takes_factor(name: str) -> bool:
    """Whether the rule's numbers depend on how far the context is extended."""
    return extended(name, 1.0) != extended(name, 2.0)

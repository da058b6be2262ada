"""Errors a user can cause, each one line that names the field, the value and what is allowed."""

from collections.abc import Iterable


class InvalidInput(ValueError):
    """A user's mistake. Commands print its message as one line and exit with status 2."""


def invalid(field: str, value: object, allowed: str) -> InvalidInput:
    """The error for `field`, which may only be `allowed` (a phrase), not `value`."""
    return InvalidInput(f"{field} = {value!r} is not allowed; it must be {allowed}")


def require(condition: bool, field: str, value: object, allowed: str) -> None:
    """Raises InvalidInput naming the field, the value and what is allowed unless `condition` holds."""
    if not condition:
        raise invalid(field, value, allowed)


def require_choice(field: str, value: object, choices: Iterable[str]) -> None:
    """Raises InvalidInput unless `value` is one of the names in `choices`."""
    choices = list(choices)
    require(value in choices, field, value, "one of " + ", ".join(choices))

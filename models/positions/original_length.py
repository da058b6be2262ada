"""The length trained at, where a rule refers to it: a field `original_length` in tokens, None until it is filled in."""

from models.errors import invalid, require


def require_original_length(original_length: int | None, least: int = 1) -> None:
    """Raises InvalidInput unless `original_length` is None or a number of tokens from `least` on."""
    require(
        original_length is None or original_length >= least, "original_length", original_length, f"at least {least}"
    )


def filled_length(field: str, original_length: int | None) -> int:
    """The original length in tokens. Raises InvalidInput, naming `field` in full, while it is None."""
    if original_length is None:
        raise invalid(field, None, "a number of tokens, the length trained at")
    return original_length

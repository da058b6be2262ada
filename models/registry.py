"""Families of alternatives: a name used in a configuration maps to the class it configures."""

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from models.errors import require_choice

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps a name to an alternative of one family, such as `"alibi"` to the class ALiBi.

    `family` is the word that error messages use for the field ("position.name").
    """

    def __init__(self, family: str):
        self.family = family
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[Any], Any]:
        """A decorator that enters a class or function under `name`; a class learns its name as `cls.name`."""

        def enter(entry: Any) -> Any:
            if name in self._entries:
                raise ValueError(f"{self.family}: {name!r} is registered twice")
            self._entries[name] = entry
            if isinstance(entry, type):
                entry.name = name  # type: ignore[attr-defined]
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        require_choice(self.family, name, self._entries)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def items(self):
        return self._entries.items()

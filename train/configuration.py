"""Between the open, overridable ConfigDict and the frozen, typed dataclasses that validate themselves.

The dataclasses are the only place where fields and defaults are written. `to_config_dict` opens one for editing;
`from_config_dict` closes it again. A field whose type is a family of alternatives (a base class with a `registry`
class attribute) becomes a dictionary with a `name` and the fields of the alternative of that name. Setting another
name brings that alternative's fields.
"""

import dataclasses
import types
import typing
from typing import Any, TypeVar

import ml_collections

from models.errors import InvalidInput, invalid, require_choice

T = TypeVar("T")


def field_types(cls: type) -> dict[str, Any]:
    """Field name to resolved type of a dataclass."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


class Choice(ml_collections.ConfigDict):
    """An alternative of a family, opened. Another `name` brings that alternative's fields, with its defaults; fields
    that both have keep what was changed from the old default. A name that the family lacks is refused on closing.
    """

    def __init__(self, family: Any = None):
        super().__init__(convert_dict=False)
        object.__setattr__(self, "_family", family)

    def __setstate__(self, state: dict[str, Any]) -> None:  # a copy's fields come one by one: the name switches nothing
        super().__setstate__(state)
        object.__setattr__(self, "_family", state["_family"])

    def __setitem__(self, key: str, value: Any) -> None:
        if key != "name" or "name" not in self or self._family is None or value not in self._family:
            super().__setitem__(key, value)
            return
        old, new = (default_config_dict(self._family[name]) for name in (self["name"], value))
        types_ = field_types(self._family[value])
        kept = {name: self[name] for name in types_ if name in self and (name not in old or self[name] != old[name])}
        self._fields.clear()
        with self.ignore_type():
            for name, field in {**new, **kept}.items():
                super().__setitem__(name, field)


def _opened(cls: Any) -> ml_collections.ConfigDict:
    """An empty dictionary for the fields of `cls`, with the name of an alternative."""
    if not _is_alternative(cls):
        return ml_collections.ConfigDict(convert_dict=False)
    opened = Choice(cls.registry)
    opened["name"] = cls.name
    return opened


def to_config_dict(value: Any) -> ml_collections.ConfigDict:
    """Opens a dataclass instance as a ConfigDict; alternatives carry their `name` first."""
    opened = _opened(type(value))
    for name, annotation in field_types(type(value)).items():
        opened[name] = _open(getattr(value, name), annotation)
    return opened


def to_plain(value: Any, only: type | None = None) -> dict[str, Any]:
    """A dataclass instance as plain dictionaries and lists, as JSON holds them; `only` a base class's fields."""
    opened = to_config_dict(value)
    names = opened.keys() if only is None else field_types(only)
    return {name: _plain(opened[name]) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, ml_collections.ConfigDict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def from_config_dict(cls: type[T], config: Any, path: str = "config") -> T:
    """Closes a ConfigDict (or dict) into `cls`, which validates itself.

    Raises InvalidInput naming the field's full path, the value and what is allowed, on an unknown field, an unknown
    alternative, a value of the wrong type, or whatever the dataclass itself refuses.
    """
    values = dict(config.items())
    if hasattr(cls, "registry"):
        family = cls.registry  # type: ignore[attr-defined]
        name = values.pop("name", None)
        require_choice(f"{path}.name", name, family)
        cls = family[name]
    types_ = field_types(cls)
    for name in values:
        if name not in types_:
            raise InvalidInput(f"{path}.{name} is unknown; {path} has the fields " + ", ".join(types_))
    closed = {name: _close(values[name], types_[name], f"{path}.{name}") for name in types_ if name in values}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name not in closed and not _has_default(field):
            raise InvalidInput(f"{path}.{field.name} is missing; it has no default")
    try:
        return cls(**closed)
    except InvalidInput as error:
        raise InvalidInput(f"{path}.{error}") from None


def default_config_dict(cls: type) -> ml_collections.ConfigDict:
    """What `to_config_dict` opens for a class by its defaults; fields without a default are left out."""
    opened = _opened(cls)
    types_ = field_types(cls)
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            opened[field.name] = _open(field.default, types_[field.name])
        elif field.default_factory is not dataclasses.MISSING:
            opened[field.name] = _open(field.default_factory(), types_[field.name])
    return opened


def _has_default(field: dataclasses.Field) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _is_alternative(cls: type) -> bool:
    return hasattr(cls, "registry")


def inner_type(annotation: Any) -> Any:
    """The type inside `X | None`, or the type itself."""
    return _optional(annotation)[0]


def _optional(annotation: Any) -> tuple[Any, bool]:
    """The type inside `X | None`, and whether None is allowed."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        return inner[0], True
    return annotation, False


def _open(value: Any, annotation: Any) -> Any:
    annotation = inner_type(annotation)
    if value is None:
        return None
    if dataclasses.is_dataclass(value):
        return to_config_dict(value)
    if isinstance(value, tuple):
        element = typing.get_args(annotation)[0]
        return tuple(_open(item, element) for item in value)
    return value


def _close(value: Any, annotation: Any, path: str) -> Any:
    annotation, optional = _optional(annotation)
    if value is None:
        if not optional:
            raise invalid(path, value, f"a value of type {annotation.__name__}")
        return None
    if typing.get_origin(annotation) is tuple:
        if not isinstance(value, (tuple, list)):
            raise invalid(path, value, "a list")
        element = typing.get_args(annotation)[0]
        return tuple(_close(item, element, f"{path}[{i}]") for i, item in enumerate(value))
    if dataclasses.is_dataclass(annotation) or _is_alternative(annotation):
        if not hasattr(value, "items"):
            names = f"; {path}.name may be {', '.join(annotation.registry)}" if _is_alternative(annotation) else ""
            raise invalid(path, value, f"a dictionary of fields{names}")
        return from_config_dict(annotation, value, path)
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(annotation, type) and (
        not isinstance(value, annotation) or (annotation is not bool and isinstance(value, bool))
    ):
        raise invalid(path, value, f"of type {annotation.__name__}")
    return value

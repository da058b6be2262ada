"""Changing a configuration by dotted paths: `model.position.scaling.factor=8.0`."""

import ast
import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any

import ml_collections

from models.errors import InvalidInput, require_choice
from train.configuration import field_types, inner_type, to_plain


def apply_overrides(cls: type, config: ml_collections.ConfigDict, overrides: Mapping[str, Any]) -> None:
    """Sets each path of `config`, an opened `cls`, in place. Values may be text, read as the field's type asks.

    Names of alternatives are set first, so that their fields can be set in any order. Raises InvalidInput naming the
    path and the fields that exist.
    """
    by_name_first = sorted(overrides.items(), key=lambda item: (item[0].split(".")[-1] != "name", item[0].count(".")))
    for path, value in by_name_first:
        _set(cls, config, path.split("."), value, path)


def _set(cls: Any, config: ml_collections.ConfigDict, parts: list[str], value: Any, path: str) -> None:
    family = getattr(cls, "registry", None)
    if family is not None:
        if parts == ["name"]:
            require_choice(f"config.{path}", value, family)
            config["name"] = value
            return
        cls = family[config["name"]]
    types = field_types(cls)
    first, *rest = parts
    if first not in types:
        close = difflib.get_close_matches(first, types, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        where = ".".join(["config", *path.split(".")[: -len(parts)]])
        known = (["name"] if family is not None else []) + list(types)
        raise InvalidInput(f"config.{path} is unknown{hint}; {where} has the fields {', '.join(known)}")
    annotation = inner_type(types[first])
    if rest:
        if not isinstance(config[first], ml_collections.ConfigDict):
            owner = path.removesuffix("." + ".".join(rest))
            raise InvalidInput(f"config.{path} is unknown; config.{owner} has no fields")
        _set(annotation, config[first], rest, value, path)
    else:
        with config.ignore_type():
            config[first] = _read(value, annotation) if isinstance(value, str) else value


def _read(text: str, annotation: Any) -> Any:
    """Text from a command line as a Python value; a field of type str takes it as it is.

    A list may be written without its brackets, and one of words without their quotes: `yarn,linear`.
    """
    if annotation is str and text != "None":
        return text
    a_list = typing.get_origin(annotation) is tuple
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        words = tuple(word.strip() for word in text.split(","))
        return words if a_list else {"true": True, "false": False}.get(text, text)
    return (value,) if a_list and not isinstance(value, (tuple, list)) else value


def changed(before: Any, after: Any, prefix: str = "") -> dict[str, Any]:
    """Paths whose values differ between two instances of one dataclass, with the later values as JSON holds them.

    Of another alternative, its name and what differs from its defaults.
    """
    changes: dict[str, Any] = {}
    if type(before) is not type(after):
        changes[f"{prefix}name"] = after.name
        before = type(after)()
    values = to_plain(after)
    for field in dataclasses.fields(after):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if dataclasses.is_dataclass(old) and dataclasses.is_dataclass(new):
            changes |= changed(old, new, f"{prefix}{field.name}.")
        elif old != new:
            changes[prefix + field.name] = values[field.name]
    return changes

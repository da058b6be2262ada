"""Changing a configuration by dotted paths: `model.position.scaling.factor=8.0`.

Naming another alternative (`model.position.name=t5`) brings that alternative's fields, with its defaults; fields that
both have keep what was changed from the old default.
"""

import ast
import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

import ml_collections

from models.errors import InvalidInput, require_choice
from train.configuration import field_types, inner_type, to_config_dict


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
            _switch(cls, config, value)
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
            raise InvalidInput(f"config.{path} is unknown; config.{'.'.join(parts[:1])} has no fields")
        _set(annotation, config[first], rest, value, path)
    else:
        with config.ignore_type():
            config[first] = _read(value, annotation) if isinstance(value, str) else value


def _switch(cls: Any, config: ml_collections.ConfigDict, name: str) -> None:
    old = to_config_dict(cls.registry[config["name"]]())
    new = to_config_dict(cls.registry[name]())
    kept = {key: config[key] for key in new if key != "name" and key in config and config[key] != old[key]}
    with config.ignore_type():
        for key in list(config.keys()):
            del config[key]
        for key, value in new.items():
            config[key] = kept.get(key, value)


def _read(text: str, annotation: Any) -> Any:
    """Text from a command line as a Python value; a field of type str takes it as it is."""
    if annotation is str and text != "None":
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text, text)


def changed(before: Any, after: Any) -> dict[str, Any]:
    """Paths whose values differ between two instances of one dataclass, with the later values."""
    flat_before, flat_after = (_flat(to_config_dict(value)) for value in (before, after))
    return {path: value for path, value in flat_after.items() if flat_before.get(path, dataclasses.MISSING) != value}


def _flat(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat

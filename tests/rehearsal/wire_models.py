"""Holds JSON against the models that azure-ai-ml reads it with: required fields, types, known values.

    list(findings(answer, models.ComputeResource))      # [] or ["properties.createdOn: no time: 'yesterday'"]

The models are lenient: what they lack is None, and what they do not know is kept. This reads what they declare.
"""

from __future__ import annotations

import re
import sys
import types
import typing
from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import Enum
from functools import cache
from typing import Any

DURATION = re.compile(r"^P(?=.)(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?$")


def findings(value: Any, declared: Any, at: str = "") -> Iterator[str]:
    """What is wrong with a value for a declared type; nothing when it fits."""
    origin = typing.get_origin(declared)
    if declared is Any:
        return
    if origin in (typing.Union, types.UnionType):
        yield from _of_union(value, [one for one in typing.get_args(declared) if one is not type(None)], at)
    elif origin is list:
        if not isinstance(value, list):
            yield f"{at}: no list: {value!r}"
            return
        for number, one in enumerate(value):
            yield from findings(one, typing.get_args(declared)[0], f"{at}[{number}]")
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{at}: no object: {value!r}"
            return
        for key, one in value.items():
            if one is not None:
                yield from findings(one, typing.get_args(declared)[1], f"{at}.{key}")
    elif origin is typing.Literal:
        if value not in [getattr(one, "value", one) for one in typing.get_args(declared)]:
            yield f"{at}: {value!r} is none of {typing.get_args(declared)}"
    elif hasattr(declared, "_is_model"):
        yield from _of_model(value, declared, at)
    else:
        yield from _plain(value, declared, at)


def _of_model(value: Any, model: Any, at: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{at}: no object: {value!r}"
        return
    model = _by_discriminator(value, model)
    hints = _hints(model)
    for attribute, (name, _) in _fields(model).items():
        declared, where = hints[attribute], f"{at}.{name}".lstrip(".")
        if value.get(name) is not None:
            yield from findings(value[name], declared, where)
        elif type(None) not in typing.get_args(declared):
            yield f"{where}: is missing, and {model.__name__} requires it"


def _by_discriminator(value: dict, model: Any) -> Any:
    """The model that the value says it is one of."""
    mapping = model.__dict__.get("__mapping__") or {}
    for name, is_discriminator in _fields(model).values():
        if is_discriminator and value.get(name) in mapping:
            return _by_discriminator(value, mapping[value[name]])
    return model


def _of_union(value: Any, options: list[Any], at: str) -> Iterator[str]:
    enums = [one for one in options if isinstance(one, type) and issubclass(one, Enum)]
    if enums and isinstance(value, str):
        known = {str(one.value).lower() for enum in enums for one in enum}
        if value.lower() not in known:
            yield f"{at}: {value!r} is none of {sorted(known)}"
        return
    tried = [list(findings(value, one, at)) for one in options]
    if all(tried):
        yield from tried[0]


def _plain(value: Any, declared: Any, at: str) -> Iterator[str]:
    if declared is datetime:
        try:
            datetime.fromisoformat(value)
        except (TypeError, ValueError):
            yield f"{at}: no time: {value!r}"
    elif declared is timedelta:
        if not isinstance(value, str) or not DURATION.match(value):
            yield f"{at}: no duration: {value!r}"
    elif declared in (int, float):
        if isinstance(value, bool) or not isinstance(value, int if declared is int else int | float):
            yield f"{at}: no {declared.__name__}: {value!r}"
    elif not isinstance(value, declared):
        yield f"{at}: no {declared.__name__}: {value!r}"


@cache
def _fields(model: Any) -> dict[str, tuple[str, bool]]:
    """Attribute: its name on the wire, and whether it tells which model it is."""
    found = {}
    for one in reversed(model.__mro__):
        for attribute, field in vars(one).items():
            if hasattr(field, "_rest_name_input"):
                found[attribute] = (field._rest_name_input or attribute, field._is_discriminator)
    return found


@cache
def _hints(model: Any) -> dict[str, Any]:
    package = sys.modules[model.__module__.rpartition(".")[0]]
    return typing.get_type_hints(model, localns={"_models": package})

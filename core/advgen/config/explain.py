"""pydantic's complaints as sentences: which key, what came, from where, what was expected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from advgen.config.toml import KeyPath, Place, dotted
from advgen.errors import nearest


def explain(error: ValidationError, model: type[BaseModel], source: Place, prefix: KeyPath = ()) -> list[str]:
    """One line for each complaint.

    Args:
        error: what pydantic raised for ``model``.
        model: names the keys that would have been right.
        source: says where a key was set.
        prefix: path of the model in the whole configuration.
    """
    lines = []
    for detail in error.errors(include_url=False):
        path = tuple(detail["loc"])
        where = source(prefix + path)
        name = dotted(prefix + path) or model.__name__
        if detail["type"] == "extra_forbidden":
            lines.append(f"unknown key {name!r} ({where}); {_right_key(path, model, prefix)}")
        elif detail["type"] == "missing":
            lines.append(f"{name} is missing; set it with --set {name}=VALUE or in a file")
        else:
            lines.append(f"{name} = {_short(detail['input'])} ({where}): {_expected(detail)}")
    return lines


def _expected(detail: Any) -> str:
    text = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] in ("model_type", "dict_type"):
        return "expected a table of keys"
    return text.replace("Input should be", "expected")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _right_key(path: KeyPath, model: type[BaseModel], prefix: KeyPath) -> str:
    """The nearest key in the same section, or the same key in another one."""
    key = str(path[-1])
    section = section_at(model, path[:-1])
    siblings = list(section.model_fields) if section else []
    elsewhere = [dotted(prefix + known) for known in key_paths(model) if known[-1] == key]
    if elsewhere:
        return f"did you mean {' or '.join(repr(name) for name in elsewhere)}?"
    return nearest(key, siblings)


def section_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """The model that holds the keys below ``path``; names of free tables and list indices are stepped over."""
    current: type[BaseModel] | None = model
    for part in path:
        field = current.model_fields.get(str(part)) if current else None
        if field is not None:
            current = inner_model(field.annotation)
    return current


def inner_model(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model inside an annotation such as ``dict[str, Model]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := inner_model(part))), None)


def key_paths(model: type[BaseModel], path: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key of a model and of the sections inside it."""
    for name, field in model.model_fields.items():
        yield (*path, name)
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from key_paths(section, (*path, name))

"""pydantic's complaints as sentences: which key, what came, from where, what was expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from advgen.config.expected import expected_text, rules_of
from advgen.config.toml import KeyPath, Place, dotted
from advgen.errors import nearest


@dataclass(frozen=True)
class Complaint:
    """What is wrong with one key.

    Args:
        path: the key as users write it; empty for the model as a whole.
        kind: ``together`` where the values of a table do not fit together.
        value: what came.
        way: what was expected, or the keys that would have been right.
    """

    path: KeyPath
    kind: Literal["unknown", "missing", "value", "together"]
    value: Any
    way: str


def explain(error: ValidationError, model: type[BaseModel], tree: Any, source: Place, prefix: KeyPath = ()) -> list[str]:
    """One line for each key that is wrong.

    Args:
        error: what pydantic raised for ``model``.
        model: names the keys that would have been right.
        tree: what was to be made a model of.
        source: says where a key was set.
        prefix: path of the model in the whole configuration.
    """
    lines = []
    for each in complaints(error, model, tree, prefix):
        where, name = source(prefix + each.path), dotted(prefix + each.path)
        if each.kind == "unknown":
            lines.append(f"unknown key {name!r} ({where}); {each.way}")
        elif each.kind == "missing":
            lines.append(f"{name} is missing; set it with --set {name}=VALUE or in a file")
        elif each.kind == "together":
            places = dict.fromkeys(source(prefix + each.path + path) for path in leaves(each.value)) or [where]
            lines.append(f"{name} ({', '.join(places)}): {each.way}" if name else f"the configuration: {each.way}")
        else:
            lines.append(f"{name} = {_short(each.value)} ({where}): {each.way}")
    return lines


def explain_flags(
    error: ValidationError, model: type[BaseModel], given: Mapping[str, Any], flags: Mapping[str, str]
) -> list[str]:
    """The same for a model whose fields are flags of a command, named as they are but for ``flags``."""
    lines, named = [], {name: flags.get(name, f"--{name.replace('_', '-')}") for name in (*model.model_fields, *given)}
    for each in complaints(error, model, given):
        if each.kind == "unknown":
            lines.append(f"unknown option {dotted(each.path)!r}; {each.way}")
        elif each.kind == "together":
            lines.append(f"{' '.join(f'{named[name]} {value}' for name, value in given.items())}: {each.way}")
        else:
            lines.append(f"{named[str(each.path[0])]} {_plain(each.value)}: {each.way}")
    return lines


def complaints(error: ValidationError, model: type[BaseModel], tree: Any, prefix: KeyPath = ()) -> list[Complaint]:
    """Every key that is wrong, once: parts of a union are told together."""
    found = dict[KeyPath, Complaint]()
    for detail in error.errors(include_url=False):
        each = _complaint(detail, model, tree, prefix)
        found.setdefault(each.path, each)
    return list(found.values())


def _complaint(detail: Any, model: type[BaseModel], tree: Any, prefix: KeyPath) -> Complaint:
    loc, kind = tuple(detail["loc"]), detail["type"]
    if kind == "extra_forbidden":
        return Complaint(loc, "unknown", detail["input"], _right_key(loc, model, prefix))
    path, annotation, rules = _written(loc, model)
    if kind == "missing" and path == loc:
        return Complaint(path, "missing", None, "")
    value = _at(tree, path, detail["input"])
    if kind == "value_error":
        way = str(detail["msg"]).removeprefix("Value error, ")
        return Complaint(path, "together" if isinstance(value, Mapping) else "value", value, way)
    expected = expected_text(annotation, rules)
    return Complaint(path, "value", value, f"expected {expected}" if expected else str(detail["msg"]))


def _written(loc: KeyPath, model: type[BaseModel]) -> tuple[KeyPath, Any, list[Any]]:
    """What a user writes of a complaint's place, with what belongs there and its bounds.

    It ends before the part of a union, and before the item of a list of plain values.
    """
    path: KeyPath = ()
    annotation: Any = model
    rules: list[Any] = []
    for part in loc:
        inner = _inside(_stripped(annotation), part)
        if inner is None:
            break
        path, (annotation, rules) = (*path, part), inner
    return path, annotation, rules


def _inside(annotation: Any, part: str | int) -> tuple[Any, list[Any]] | None:
    """What a table, or a list of tables, takes under a key."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return (field.annotation, list(field.metadata)) if field else None
    parts = get_args(annotation)
    if get_origin(annotation) is dict:
        return parts[1], rules_of(parts[1])
    if get_origin(annotation) in (tuple, list) and inner_model(parts[0]):
        return parts[0], []
    return None


def _stripped(annotation: Any) -> Any:
    """An annotation without its bounds, and without None beside it."""
    if get_origin(annotation) is Annotated:
        return _stripped(get_args(annotation)[0])
    parts = [part for part in get_args(annotation) if part is not NoneType]
    return _stripped(parts[0]) if len(parts) == 1 and NoneType in get_args(annotation) else annotation


def _at(tree: Any, path: KeyPath, default: Any) -> Any:
    """The value at a path; ``default`` where the tree leaves it out."""
    for part in path:
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            return default
    return tree


def leaves(tree: Mapping[str, Any], path: KeyPath = ()) -> list[KeyPath]:
    """Paths of all values that are no tables."""
    found: list[KeyPath] = []
    for key, value in tree.items():
        found += leaves(value, (*path, key)) if isinstance(value, Mapping) else [(*path, key)]
    return found


def _plain(value: Any) -> str:
    return value if isinstance(value, str) and value else repr(value)


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

"""What a key takes, in words for messages and help. Imports no pydantic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

WORDS: Mapping[Any, tuple[str, str]] = {
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("text", "texts"),
}
BOUNDS = {"ge": "{} or more", "gt": "above {}", "le": "{} or less", "lt": "below {}"}


def expected_text(annotation: Any, rules: Iterable[Any] = ()) -> str:
    """What an annotation takes: ``an integer, 1 or more``, ``'a' or 'b'``, ``a list of 2 numbers``; empty: not known.

    Args:
        rules: the bounds of its field, as pydantic keeps them in ``metadata``.
    """
    kind, parts, rules = get_origin(annotation) or annotation, get_args(annotation), list(rules)
    if kind is Annotated:
        return expected_text(parts[0], [*rules, *rules_of(annotation)])
    if kind is Literal:
        return _either([repr(part) for part in parts])
    if kind in (Union, UnionType):
        return _either([expected_text(part, rules) for part in parts if part is not NoneType])
    filled = " that is not empty" if any(getattr(rule, "min_length", 0) for rule in rules) else ""
    if kind in WORDS:
        return ", ".join(filter(None, [WORDS[kind][0] + filled, range_text(rules)]))
    if kind in (tuple, list):
        return _list_text(parts) + filled
    if kind is dict and get_origin(parts[0]) is Literal:
        return f"a table of {expected_text(parts[0])}, each {expected_text(parts[1])}"
    return "a table of keys" if kind is dict or hasattr(kind, "model_fields") else ""


def rules_of(annotation: Any) -> list[Any]:
    """The bounds inside ``Annotated[...]``, bare or in a ``Field``."""
    return [rule for part in get_args(annotation)[1:] for rule in getattr(part, "metadata", None) or [part]]


def range_text(rules: Iterable[Any]) -> str:
    """What numbers are taken: ``4 to 1024``, ``1 or more``; empty where all."""
    bounds = {name: getattr(rule, name) for rule in rules for name in ("ge", "gt", "le", "lt") if hasattr(rule, name)}
    if "ge" in bounds and "le" in bounds:
        return f"{bounds['ge']} to {bounds['le']}"
    return " and ".join(BOUNDS[name].format(bound) for name, bound in bounds.items())


def _list_text(parts: Sequence[Any]) -> str:
    items = [part for part in parts if part is not Ellipsis]
    if not items:
        return "a list"
    plain = items[0] if get_origin(items[0]) is not Annotated else get_args(items[0])[0]
    count = f"{len(items)} " if len(items) > 1 else ""
    return f"a list of {count}{WORDS[plain][1] if plain in WORDS else 'tables'}"


def _either(texts: Sequence[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``; a part with a comma of its own is set off by one."""
    texts = list(dict.fromkeys(filter(None, texts)))
    if len(texts) < 2:
        return "".join(texts)
    return ", ".join(texts[:-1]) + (", or " if any("," in text for text in texts) else " or ") + texts[-1]

"""TOML with line numbers on the way in and sources on the way out."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from advgen.errors import ConfigError
from advgen.terminal import visible, visible_json

MOST_BYTES = 2**18
DEEPEST = 32
MOST_PARSED = 2**21
"""Largest text, in characters, that is parsed again to find the lines of keys. Messages for longer ones name no line."""
LONG_KEY = re.compile(rf"""(?<![\w-])(?:(?:"[^"\n]*"|'[^'\n]*'|[\w-]++)[ \t]*\.[ \t]*){{{2 * DEEPEST}}}""")
"""Keys with very many parts. The standard library's parser takes time quadratic in their number."""
KeyPath = tuple[str | int, ...]
Place = Callable[[KeyPath], str]


def dotted(path: KeyPath) -> str:
    """``("schedules", "a.b", "end")`` as ``schedules."a.b".end``."""
    return ".".join(_key(str(part)) for part in path)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _string(name)


def _string(text: str) -> str:
    return visible_json(json.dumps(text, ensure_ascii=False), halves=False)


def read_file(path: Path) -> tuple[dict[str, Any], Place]:
    """A TOML file as a tree, and a function that says in which line a key stands.

    Raises:
        ConfigError: where it cannot be read or is not TOML.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        text = content[:MOST_BYTES].decode(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"config file {path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be read: {error.strerror or error}") from error
    if len(content) > MOST_BYTES:
        raise ConfigError(f"config file {path} has more than {MOST_BYTES} bytes; expected the options of a run")
    return read_text(text, str(path))


def read_text(text: str, name: str) -> tuple[dict[str, Any], Place]:
    """The same for text that is already read; ``name`` is what messages call it."""
    if len(text) > MOST_BYTES:
        raise ConfigError(f"{name} has more than {MOST_BYTES} characters; expected the options of a run")
    too_deep = f"{name} is nested too deeply, expected at most {DEEPEST} levels"
    if LONG_KEY.search(text):
        raise ConfigError(too_deep)
    try:
        tree = tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError(too_deep) from error
    except ValueError as error:  # numbers of very many digits raise a plain one
        raise ConfigError(f"{name} is not valid TOML: {error}") from error
    if _is_deep(tree):
        raise ConfigError(too_deep)
    lines = key_lines(text)

    def place(path: KeyPath) -> str:
        for length in range(len(path), 0, -1):
            if path[:length] in lines:
                return f"{name}:{lines[path[:length]]}"
        return name

    return tree, place


def _is_deep(tree: Any) -> bool:
    level = [tree]
    for _ in range(DEEPEST):
        inner = [list(node.values()) if isinstance(node, dict) else node for node in level]
        level = [value for values in inner for value in values if isinstance(value, dict | list)]
        if not level:
            return False
    return True


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line (from 1) of every key and header of a valid TOML text."""
    found: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    header: KeyPath = ()
    lines, index, num_parsed = text.splitlines(), 0, 0
    while index < len(lines) and num_parsed < MOST_PARSED:
        number, line = index + 1, lines[index].strip()
        index += 1
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            header = _header(line, counts)
            found.setdefault(header[:-1] if isinstance(header[-1], int) else header, number)
            found.setdefault(header, number)
            continue
        statement = line
        while (entry := _try_parse(statement)) is None and index < len(lines):  # a value over several lines
            statement += "\n" + lines[index]
            index, num_parsed = index + 1, num_parsed + len(statement)
            if num_parsed > MOST_PARSED:
                return found
        for path in _paths(entry or {}):
            found.setdefault(header + path, number)
    return found


def _header(line: str, counts: dict[KeyPath, int]) -> KeyPath:
    """Path of ``[a.b]``, or of ``[[a.b]]`` with the index of this element."""
    tree: Any = tomllib.loads(line)
    path: list[str | int] = []
    while tree:
        value = tree[0] if isinstance(tree, list) else tree
        if not value:
            break
        name, tree = next(iter(value.items()))
        path.append(name)
        if not isinstance(tree, list) and (*path,) in counts:
            path.append(counts[(*path,)])  # a table inside the latest element
    if isinstance(tree, list):
        counts[(*path,)] = counts.get((*path,), -1) + 1
        path.append(counts[(*path,)])
    return tuple(path)


def _try_parse(statement: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(statement)
    except (ValueError, RecursionError):
        return None


def _paths(tree: Mapping[str, Any]) -> Iterator[KeyPath]:
    for key, value in tree.items():
        yield (key,)
        if isinstance(value, Mapping):
            yield from ((key, *rest) for rest in _paths(value))


def parse_value(text: str) -> Any:
    """A value as TOML reads it, or the text itself: ``3``, ``true``, ``[1, 2]``, ``hinge``."""
    tree = _try_parse(f"value = {text}")
    return tree["value"] if tree is not None and set(tree) == {"value"} else text


def parse_assignment(text: str) -> dict[str, Any]:
    """``a.b=c`` as a nested tree.

    Raises:
        ConfigError: where there is no ``=`` or the key is not a dotted key.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text!r} is not an assignment; expected section.key=value")
    return nested(key, parse_value(value.strip()), f"--set {text!r} is not an assignment; expected section.key=value")


def nested(key: str, value: Any, refusal: str) -> dict[str, Any]:
    """A dotted key as TOML writes it, and its value, as a nested tree.

    Raises:
        ConfigError: with ``refusal``, where it is not a dotted key.
    """
    tree = None if "\n" in key else _try_parse(f"{key.strip()} = 0")
    if tree is None:
        raise ConfigError(refusal)
    inner = tree
    while isinstance(next(iter(inner.values())), dict):
        inner = next(iter(inner.values()))
    inner[next(iter(inner))] = value
    return tree


def write(tree: Mapping[str, Any], source_of: Callable[[KeyPath], str], path: KeyPath = ()) -> str:
    """TOML with each value's source behind it; a value of None becomes a comment."""
    tables = {key: value for key, value in tree.items() if isinstance(value, Mapping)}
    lines = []
    for key, value in tree.items():
        if key not in tables:
            text = f"# {_key(key)} is not set" if value is None else f"{_key(key)} = {value_text(value)}"
            lines.append(f"{text}  # {visible(source_of((*path, key)))}")
    blocks = [*([f"[{dotted(path)}]"] if path and lines else []), *lines]
    text = "\n".join(blocks) + "\n" if blocks else ""
    inner = [write(value, source_of, (*path, key)) for key, value in tables.items()]
    return "\n".join(part for part in [text, *inner] if part)


def value_text(value: Any) -> str:
    """A bool, number, string, list or table in TOML's notation, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {value_text(item)}" for key, item in value.items() if item is not None)
        return "{" + inner + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(value_text(item) for item in value) + "]"
    return _string(str(value))

"""Places in plugin code: which plugin a module belongs to, and the file and line that an error names. Imports no torch."""

from __future__ import annotations

import functools
import inspect
import linecache
import traceback
from collections.abc import Callable
from pathlib import Path, PurePath
from types import FrameType
from typing import Any, ParamSpec, TypeVar

from advgen.errors import GenError

CORE = "advgen"
MOST_DECORATORS = 20
"""Lines to search after the first decorator for the ``def`` or ``class`` line."""

P = ParamSpec("P")
R = TypeVar("R")

_owners: dict[str, str] = {}
_files: set[str] = set()


def note_owner(plugin: str, modules: list[str], *, file: bool = False) -> None:
    """Remember that modules, and all modules below them, belong to a plugin.

    Args:
        plugin: its name.
        modules: full names.
        file: True if the module is a single file, imported under a made-up name.
    """
    own = [name for name in modules if name and name.partition(".")[0] != CORE]
    _owners.update(dict.fromkeys(own, plugin))
    _files.update(own if file else ())


def owner_of(module: str) -> str | None:
    """Return the plugin that a module belongs to, by its longest known prefix; None if no plugin has it."""
    while module:
        if module in _owners:
            return _owners[module]
        module = module.rpartition(".")[0]
    return None


def kind_of(value: Any) -> str:
    """Name the type of a value: ``None``, ``numpy.float64``, or ``the class Corpus`` if it is a class itself."""
    kind = type(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else f"numpy.{kind.__name__}" if kind.__module__ == "numpy" else kind.__name__


def place_of(thing: Any) -> str:
    """Return ``file.py:41`` for a function, a method or a class; empty if it has no source."""
    thing = inspect.unwrap(getattr(thing, "__func__", thing))
    try:
        path = inspect.getsourcefile(thing) or ""
        first = thing.__code__.co_firstlineno if hasattr(thing, "__code__") else inspect.getsourcelines(thing)[1]
    except (OSError, TypeError):
        return ""
    return f"{_short(path, thing.__module__)}:{_below_decorators(path, first)}"


def _below_decorators(path: str, first: int) -> int:
    """Return the line with ``def`` or ``class`` for a definition that may start with decorators."""
    lines = linecache.getlines(path)[first - 1 : first + MOST_DECORATORS]
    if not lines or not lines[0].lstrip().startswith("@"):
        return first
    named = (index for index, line in enumerate(lines) if line.lstrip().startswith(("def ", "class ", "async def ")))
    return first + next(named, 0)


def said_of(thing: Any, owner: type | None = None, name: str | None = None) -> str:
    """Name a function, method or class as messages do: ``plugin 'points': PointsModality.read``.

    Args:
        owner: the class that the method ``name`` was called on.
    """
    called = getattr(thing, "__qualname__", repr(thing)) if owner is None else f"{owner.__name__}.{name or thing.__name__}"
    modules = [getattr(each, "__module__", None) or "" for each in (thing, owner)]
    plugin = next((found for module in modules if (found := owner_of(module)) is not None), None)
    return called if plugin is None else f"plugin {plugin!r}: {called}"


def at(thing: Any) -> str:
    """Return the place of a function, method or class in parentheses, with a space before it; empty if it has none."""
    place = place_of(thing)
    return f" ({place})" if place else ""


def blamed(error: BaseException) -> str:
    """Name the code that raised an error: ``plugin 'points' (points.py:41, in forward)``; empty if it is unknown.

    The innermost plugin frame counts, even if the core or a library raised the error further in. Without a plugin frame, the
    innermost frame of the core counts.
    """
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    for frame, line in reversed(frames):
        if (plugin := owner_of(_module(frame))) is not None:
            return f"plugin {plugin!r} ({_where(frame, line)})"
    for frame, line in reversed(frames):
        if _module(frame).partition(".")[0] == CORE:
            return f"{CORE} ({_where(frame, line)})"
    return ""


def line_of(error: BaseException) -> str:
    """Return ``file.py:41``, the line of plugin code that raised an error, or that Python cannot read; empty if unknown."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{PurePath(error.filename).name}:{error.lineno}"
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if owner_of(_module(frame)) is not None:
            return f"{_short(frame.f_code.co_filename, _module(frame))}:{line}"
    return ""


def with_blame(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function of the Python interface: unexpected errors get a note that names the code that raised them."""

    @functools.wraps(function)
    def noting(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except GenError:
            raise
        except Exception as error:
            if note := blamed(error):
                error.add_note(f"in {note}")
            raise

    return noting


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _where(frame: FrameType, line: int) -> str:
    return f"{_short(frame.f_code.co_filename, _module(frame))}:{line}, in {frame.f_code.co_name}"


def _short(path: str, module: str) -> str:
    """Shorten a path to start at its top-level package; a single file keeps only its name."""
    parts = Path(path).parts
    count = 1 if module in _files else module.count(".") + 1 + (parts[-1:] == ("__init__.py",))
    return "/".join(parts[-count:])

"""Process-wide settings, read before a plugin is imported and restored after it. Torch-free.

A plugin that sets torch's default dtype during import would change the weights of every other plugin. If a plugin is the first
to import torch or numpy, their settings are read as soon as they are loaded, before the plugin's next statement.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import logging
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from advgen.shared_settings import ENVIRONMENT, FILTERS, OWNERS, SETTINGS, Setting

LONGEST = 40
MESSAGE = (
    "warning: %s changed %s when it was imported; the old value is restored, because the whole process shares it. Change such "
    "settings only in the code that needs them, and restore them there"
)


@dataclass(frozen=True)
class Change:
    """A setting that was changed, with a flag that says if it could be restored."""

    name: str
    before: Any
    after: Any
    restored: bool

    def __str__(self) -> str:
        values = [str(each) for each in (self.before, self.after)]
        told = f" (from {values[0]} to {values[1]})" if max(map(len, values)) <= LONGEST else ""
        if isinstance(self.before, dict) and isinstance(self.after, dict):
            missing = object()
            names = {*self.before, *self.after}
            told = f" ({', '.join(sorted(n for n in names if self.before.get(n, missing) != self.after.get(n, missing)))})"
        return f"{self.name}{told}{'' if self.restored else ', which cannot be put back'}"


@contextlib.contextmanager
def kept(who: str) -> Iterator[list[Change]]:
    """Restore the settings of :data:`SETTINGS` after the block, and warn once if it has changed any.

    Args:
        who: name of the code that runs in the block, such as ``plugin 'points'``.

    Returns:
        The changes, complete after the block.
    """
    watch = Watch()
    sys.meta_path.insert(0, watch)
    try:
        yield watch.changes
    finally:
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(watch)
        watch.compare()
        if watch.changes:
            told = ", ".join(dict.fromkeys(map(str, watch.changes)))
            logging.getLogger("advgen").warning(MESSAGE, who, told)


class Watch(importlib.abc.MetaPathFinder):
    """Values of the settings before foreign code runs. As an import finder, it reads those of torch and numpy on load."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.changes: list[Change] = []
        self.seen: set[str] = set()
        for owner in OWNERS:
            if not owner or owner in sys.modules:
                self.look(owner)

    def look(self, owner: str) -> None:
        """Read the settings of a module."""
        self.seen.add(owner)
        for setting in SETTINGS:
            if setting.owner == owner:
                with contextlib.suppress(Exception):  # not every build has all of them
                    self.values[setting.name] = _read(setting)

    def compare(self, *names: str) -> None:
        """Record the settings that differ from the saved values and restore them: the named ones, or all."""
        for setting in SETTINGS:
            if setting.name in self.values and (not names or setting.name in names):
                self._compare(setting)

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find torch or numpy with the other finders, and read its settings as soon as it has loaded."""
        if name in self.seen or name not in OWNERS:
            return None
        self.compare(ENVIRONMENT)  # the number of threads follows it
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next((found for finder in others if (found := finder.find_spec(name, path, target)) is not None), None)
        if spec is None or spec.loader is None or not hasattr(spec.loader, "exec_module"):
            return spec
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            self.look(name)

        with contextlib.suppress(AttributeError):
            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def _compare(self, setting: Setting) -> None:
        before, after, restored = self.values[setting.name], "unreadable", False
        with contextlib.suppress(Exception):  # torch refuses to read one interface after another one was used
            after = _read(setting)
        if setting.kept(before, after):
            return
        with contextlib.suppress(Exception):  # signal handlers outside the main thread, thread counts once threads run
            with _silent(setting):
                setting.write(before)
            restored = setting.kept(before, _read(setting))
        self.changes.append(Change(setting.name, before, after, restored))


def _read(setting: Setting) -> Any:
    with _silent(setting):
        return setting.read()


@contextlib.contextmanager
def _silent(setting: Setting) -> Iterator[None]:
    """Suppress torch's warnings about old interfaces without changing the filters."""
    if setting.name == FILTERS:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

"""Imports that may fail: optional packages, and packages whose build does not match the machine. Torch-free."""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from advgen.errors import GenError, PluginError
from advgen.global_state import kept

if TYPE_CHECKING:
    from advgen.inspection import PluginRecord


@dataclass(frozen=True)
class ImportAttempt:
    """The outcome of one import.

    Args:
        name: name of the module.
        module: the module, or None if it does not load.
        reason: the reason why it does not load, in one line; empty if it loads.
        missing: True if the package is not installed; False if it is installed, even if it does not load.
    """

    name: str
    module: ModuleType | None
    reason: str = ""
    missing: bool = False

    def __bool__(self) -> bool:
        return self.module is not None

    @property
    def problem(self) -> str:
        """Return words to follow the module's name: "is not installed", or "does not load" with the reason."""
        return "is not installed" if self.missing else f"does not load ({self.reason})"


def try_import(name: str) -> ImportAttempt:
    """Import a module if it loads. A failure of any kind is reported in the result, not raised.

    A package can fail in many ways: it is absent (ModuleNotFoundError), its library lacks a symbol (OSError), it was built
    for another numpy (ValueError), or it ends the interpreter (SystemExit).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ImportAttempt(name, importlib.import_module(name))
    except (Exception, SystemExit) as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]
        return ImportAttempt(name, None, _one_line(error), missing)


def hide_unless_it_loads(name: str) -> None:
    """Make a package that is installed but does not load look absent in this process.

    Some libraries import a package whenever it is installed, and fail if that import fails.
    """
    if not try_import(name):
        sys.modules[name] = None  # type: ignore[assignment]  # for which finders answer that there is none


def needed_import(name: str, user: str, remedy: str, error: type[GenError] = PluginError) -> ModuleType:
    """Import a module that ``user``, such as an option, requires.

    Raises:
        GenError: of class ``error``, naming the user of the module, the reason why it does not load, and the remedy.
    """
    attempt = try_import(name)
    if attempt.module is None:
        raise error(f"{user} needs the package {name.partition('.')[0]}, which {attempt.problem}; {remedy}")
    return attempt.module


def import_requirements(record: PluginRecord) -> list[str]:
    """Import every module that a run of this plugin needs.

    Returns:
        A line for each optional module that does not load, with the consequence.

    Raises:
        PluginError: naming the required modules that do not load and the command that installs them.
    """
    spec = record.spec
    requires: Mapping[str, str] = spec.requires if spec else {}
    optional: Mapping[str, str] = spec.optional if spec else {}
    with kept(f"plugin {record.name!r}"):
        needed, attempts = [try_import(name) for name in requires], [try_import(name) for name in optional]
    if failed := [attempt for attempt in needed if not attempt]:
        problems = "; ".join(f"{attempt.name} {attempt.problem}" for attempt in failed)
        raise PluginError(f"plugin {record.name!r} cannot run: {problems}; {_remedy(failed, requires)}")
    return [
        f"{each.name.partition('.')[0]} {each.problem}: {optional[each.name]}; gen env says what to do about it"
        for each in attempts
        if not each
    ]


def _remedy(failed: Sequence[ImportAttempt], requires: Mapping[str, str]) -> str:
    """Return the install command. A package that is installed but does not load is reinstalled."""
    names = " ".join(f'"{requirement}"' for requirement in sorted({requires[attempt.name] for attempt in failed}))
    again = "" if all(attempt.missing for attempt in failed) else "--force-reinstall "
    return f"pip install {again}{names} (gen env shows all packages)"


def _one_line(error: BaseException) -> str:
    """Describe the root cause, such as the missing symbol behind "could not load"; paths are cut to file names."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"(?<!\S)(?:[A-Za-z]:\\|/)\S*[/\\](?=[^/\\\s])", "", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text}".rstrip(": ")

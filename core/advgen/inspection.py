"""One plugin: import it, ask it for its spec, and say why it cannot be used. Torch-free."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import linecache
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pluggy

from advgen import hooks
from advgen.blame import at, line_of, note_owner
from advgen.errors import PluginError, nearest
from advgen.global_state import kept
from advgen.spec import API_VERSION, MIN_API_VERSION, DataSet, PluginSpec, RemoteFile, references, with_references

ALIAS = "__plugin__"
KINDS = {str: "a string", bool: "true or false", int: "an integer", DataSet: "a DataSet"}
EXAMPLES = {"reads": "patterns such as '*.png'", "addresses": "words such as 'hub'"}

Status = Literal["ok", "found", "conflict", "broken", "incompatible", "disabled", "needs-extra"]


@dataclass(frozen=True)
class PluginRecord:
    """One plugin as it was found.

    Args:
        name: what users write after ``--plugin``.
        status: ``ok`` can be used; ``found`` was not imported (``load=False``); the others say why not.
        reason: why it cannot be used and what to do; for ``ok``, a remark or nothing.
        distribution: who brought it; ``file`` for a single file.
        version: version of the distribution.
        spec: what the plugin declares; None unless it was loaded.
        module: the name of its entry module.
        path: the file of a single-file plugin.
        sha256: hash of that file.
    """

    name: str
    status: Status
    reason: str = ""
    distribution: str = ""
    version: str = ""
    spec: PluginSpec | None = None
    module: str = ""
    path: Path | None = None
    sha256: str | None = None

    @property
    def origin(self) -> str:
        """Distribution and version, or the file."""
        return str(self.path) if self.path else f"{self.distribution} {self.version}".strip()

    @property
    def qualified_name(self) -> str:
        """``distribution:name``, which is unique among installed plugins."""
        return f"{self.distribution}:{self.name}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able facts."""
        facts = {
            name: getattr(self, name) for name in ("name", "status", "reason", "distribution", "version", "module", "sha256")
        }
        return facts | {"path": str(self.path) if self.path else None, "summary": self.spec.summary if self.spec else None}


def inspect(record: PluginRecord, load: Callable[[], Any]) -> PluginRecord:
    """Import one plugin, ask it for its spec and judge both; every failure becomes a status."""
    torch_before = "torch" in sys.modules
    entry = record.module.partition(":")[0].strip()
    note_owner(record.name, [entry.partition(".")[0], entry], file=record.path is not None)
    try:
        # A plugin that prints must not spoil the JSON on standard output.
        with contextlib.redirect_stdout(sys.stderr), kept(f"plugin {record.name!r}"):
            spec = _registered_spec(load(), record.path.name if record.path else record.module)
        status, reason = _judge(spec, record)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, and what extension modules raise
        return dataclasses.replace(record, status="broken", reason=describe(error))
    if status == "ok":
        named = [target.partition(":")[0] for target in references(spec).values()]
        note_owner(spec.name, [entry.partition(".")[0], entry, *named])
    if status == "ok" and not torch_before and "torch" in sys.modules and record.path is None:
        reason = "its entry module imports torch, which slows every command; move heavy imports behind the spec's strings"
    return dataclasses.replace(record, status=status, reason=reason, spec=spec if isinstance(spec, PluginSpec) else None)


def _registered_spec(plugin: Any, module: str) -> PluginSpec:
    """Register the plugin with a manager of its own, refuse unknown hooks, and call its hook."""
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    manager.register(plugin, module)
    callers = manager.get_hookcallers(plugin) or []
    known = [name for name in vars(hooks) if name.startswith("advgen_")]
    for caller in callers:
        if not caller.has_spec():
            function = caller.get_hookimpls()[0].function
            raise PluginError(f"unknown hook {caller.name!r}; {nearest(caller.name, known)}{at(function)}")
    register = next((caller for caller in callers if caller.name == "advgen_register"), None)
    if register is None:
        raise PluginError(f"{module} has no function advgen_register() that is marked with @hookimpl")
    answers = manager.hook.advgen_register()
    answer = answers[0] if answers else None  # pluggy leaves out an answer of None
    if not isinstance(answer, PluginSpec):
        function = register.get_hookimpls()[0].function
        raise PluginError(f"advgen_register() returned {type(answer).__name__}, expected a PluginSpec{at(function)}")
    return answer


def _judge(spec: PluginSpec, record: PluginRecord) -> tuple[Status, str]:
    """Status and reason of a spec."""
    if type(spec.api_version) is not int:
        return "broken", f"api_version is {spec.api_version!r}, expected an integer"
    if spec.api_version > API_VERSION:
        return (
            "incompatible",
            f"plugin API {spec.api_version}, this advgen provides {API_VERSION}; pip install --upgrade advgen",
        )
    if spec.api_version < MIN_API_VERSION:
        remedy = f"pip install --upgrade {record.distribution}"
        return "incompatible", f"plugin API {spec.api_version}, this advgen needs {MIN_API_VERSION} or newer; {remedy}"
    fault = _fault(spec, record)
    if fault:
        return "broken", fault
    missing = [requirement for module, requirement in spec.requires.items() if not _importable(module)]
    if missing:
        return "needs-extra", "pip install " + " ".join(f'"{requirement}"' for requirement in sorted(set(missing)))
    return "ok", ""


def _fault(spec: PluginSpec, record: PluginRecord) -> str:
    """Name the first field of a spec with the wrong type or form; empty if all are well."""
    for name, hint in get_type_hints(PluginSpec).items():
        if fault := _misfit(getattr(spec, name), hint, EXAMPLES.get(name, "strings")):
            path, value, expected = fault
            return f"spec.{name}{path} is {value!r}, expected {expected}"
    if not spec.name:
        return "spec.name is '', expected a name for --plugin"
    if record.path is None and spec.name != record.name:
        return f"spec.name is {spec.name!r}, but the entry point is called {record.name!r}; make them equal"
    for name, reference in references(spec).items():
        if not re.fullmatch(r"[\w.]+:[\w.]+", reference):
            return f"spec.{name} is {reference!r}, expected 'module:attribute'"
    return ""


def _misfit(value: Any, hint: Any, entries: str) -> tuple[str, Any, str] | None:
    """Find the part of a value that does not match its annotation: its path, its value, the expected type in words."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Mapping:
        if not isinstance(value, Mapping):
            return "", value, "a mapping"
        if (odd := next((key for key in value if not isinstance(key, str)), None)) is not None:
            return "", odd, "strings as keys"
        found = ((f".{key}", _misfit(entry, inner[1], entries)) for key, entry in value.items())
        return next(((key + each[0], *each[1:]) for key, each in found if each is not None), None)
    if kind is Sequence:
        fits = isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(each, str) for each in value)
        return None if fits else ("", value, f"a tuple of {entries}")
    if isinstance(value, DataSet) and hint is DataSet:
        return _set_misfit(value)
    return None if hint is Any or isinstance(value, hint) else ("", value, KINDS[hint])


def _set_misfit(entry: DataSet) -> tuple[str, Any, str] | None:
    """Find the first field of a data set with the wrong type, as :func:`_misfit` does."""
    for name in ("summary", "home", "licence", "inside", "terms"):
        if not isinstance(value := getattr(entry, name), str):
            return f".{name}", value, "a string"
    files = entry.files if isinstance(entry.files, Sequence) and entry.files else None
    if files is None or not all(isinstance(each, RemoteFile) for each in files):
        return ".files", entry.files, "a tuple of RemoteFile"
    for file in files:
        if not isinstance(file.name, str) or not re.fullmatch(r"[^/\\:\0]+", file.name) or file.name in (".", ".."):
            return ".files", file.name, "the name of a file, without folders"
        if not isinstance(file.url, str) or not isinstance(file.sha256, str | None):
            return ".files", file, "a url and a sha256, or None, as strings"
    return None


def _importable(module: str) -> bool:
    """Return whether a module's package is installed. Only the top level is looked up, because that imports nothing."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except Exception:  # finders may raise anything; the run's own import reports the cause
        return True


def import_source(name: str, path: Path, source: bytes) -> ModuleType:
    """Run exactly the bytes that were hashed, once, as a module of that name."""
    _pin_lines(path, source)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None:
        raise PluginError(f"{path} is not a Python file; expected a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: its classes look their module up
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _pin_lines(path: Path, source: bytes) -> None:
    """Make traces show the lines that ran, even if the file has changed since."""
    lines = source.decode("utf-8", errors="replace").splitlines(keepends=True)
    for name in (str(path), str(path.resolve())):
        # An entry without a modification time is never read again.
        linecache.cache[name] = (len(source), None, lines, name)


def rename_module(spec: PluginSpec, stem: str, module: str) -> PluginSpec:
    """Return the spec of a single file with its strings pointing to the name that the module was imported as."""

    def point(reference: str) -> str:
        head, _, attribute = reference.partition(":")
        return f"{module}:{attribute}" if head in (stem, ALIAS) else reference

    return with_references(spec, point)


def usable(record: PluginRecord) -> PluginRecord:
    if record.status in ("ok", "found"):
        return record
    raise PluginError(f"plugin {record.name!r} of {record.origin} is {record.status}: {record.reason}")


def describe(error: BaseException) -> str:
    """Describe an error in one line, with the plugin's line that raised it; a PluginError keeps its own text."""
    if isinstance(error, PluginError):
        return " ".join(str(error).split())
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    line = line_of(error)
    return f"{type(error).__name__}: {text}".rstrip(": ") + (f" ({line})" if line else "")

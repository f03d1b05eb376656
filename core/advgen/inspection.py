"""One plugin: import it, ask it for its spec, and say why it cannot be used. Torch-free."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pluggy

from advgen import hooks
from advgen.errors import PluginError, nearest
from advgen.spec import API_VERSION, MIN_API_VERSION, DataSet, PluginSpec

ALIAS = "__plugin__"
TABLES = ("losses", "penalties", "metrics", "loggers", "importers")  # of a spec, name to "module:attr"

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
    try:
        # A plugin that prints must not spoil the JSON on standard output.
        with contextlib.redirect_stdout(sys.stderr):
            spec = _registered_spec(load(), record.module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, and what extension modules raise
        return dataclasses.replace(record, status="broken", reason=describe(error))
    status, reason = _judge(spec, record)
    if status == "ok" and not torch_before and "torch" in sys.modules and record.path is None:
        reason = "its entry module imports torch, which slows every command; move heavy imports behind the spec's strings"
    return dataclasses.replace(record, status=status, reason=reason, spec=spec if isinstance(spec, PluginSpec) else None)


def _registered_spec(plugin: Any, module: str) -> Any:
    """Register the plugin with a manager of its own, refuse unknown hooks, and call its hook."""
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    manager.register(plugin, module)
    callers = manager.get_hookcallers(plugin) or []
    known = [name for name in vars(hooks) if name.startswith("advgen_")]
    for caller in callers:
        if not caller.has_spec():
            raise PluginError(f"unknown hook {caller.name!r}; {nearest(caller.name, known)}")
    if not any(caller.name == "advgen_register" for caller in callers):
        raise PluginError(f"{module} has no function advgen_register() marked with @hookimpl")
    answers = manager.hook.advgen_register()
    return answers[0] if answers else None  # pluggy leaves out an answer of None


def _judge(spec: Any, record: PluginRecord) -> tuple[Status, str]:
    """Status and reason of a spec."""
    if not isinstance(spec, PluginSpec):
        return "broken", f"advgen_register() returned {type(spec).__name__}, expected a PluginSpec"
    if not isinstance(spec.api_version, int):
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
    """The first field of a spec with the wrong type or form, in words; empty where all are well."""
    for name in ("name", "summary", "config", "modality"):
        if not isinstance(getattr(spec, name), str):
            return f"spec.{name} is {getattr(spec, name)!r}, expected a string"
    for name, example in (("reads", "patterns such as '*.png'"), ("addresses", "words such as 'hub'")):
        if isinstance(entries := getattr(spec, name), str) or not all(isinstance(entry, str) for entry in entries):
            return f"spec.{name} is {entries!r}, expected a tuple of {example}"
    if hasattr(spec.datasets, "items") and not all(isinstance(entry, DataSet) for entry in spec.datasets.values()):
        return f"spec.datasets is {spec.datasets!r}, expected DataSet entries"
    for name in (*TABLES, "presets", "requires", "optional", "datasets"):
        if not hasattr(getattr(spec, name), "items"):
            return f"spec.{name} is {getattr(spec, name)!r}, expected a mapping"
    if record.path is None and spec.name != record.name:
        return f"spec.name is {spec.name!r}, but the entry point is called {record.name!r}; make them equal"
    targets = {f"{table}.{key}": value for table in TABLES for key, value in getattr(spec, table).items()}
    for name, reference in {"config": spec.config, "modality": spec.modality, **targets}.items():
        if not isinstance(reference, str) or not re.fullmatch(r"[\w.]+:[\w.]+", reference):
            return f"spec.{name} is {reference!r}, expected 'module:attribute'"
    return ""


def _importable(module: str) -> bool:
    """Find out whether a module's package is installed, without importing it, as looking for an inner module would."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except Exception:  # finders may raise whatever they like; the run's own import says what is wrong
        return True


def import_source(name: str, path: Path, source: bytes) -> ModuleType:
    """Run exactly the bytes that were hashed, once, as a module of that name."""
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


def rename_module(spec: PluginSpec, stem: str, module: str) -> PluginSpec:
    """The spec of a single file with its strings pointing at the module it was imported as."""

    def point(reference: str) -> str:
        head, _, attribute = reference.partition(":")
        return f"{module}:{attribute}" if head in (stem, ALIAS) else reference

    tables: dict[str, Any] = {table: {k: point(v) for k, v in getattr(spec, table).items()} for table in TABLES}
    return dataclasses.replace(spec, config=point(spec.config), modality=point(spec.modality), **tables)


def usable(record: PluginRecord) -> PluginRecord:
    if record.status in ("ok", "found"):
        return record
    raise PluginError(f"plugin {record.name!r} of {record.origin} is {record.status}: {record.reason}")


def describe(error: BaseException) -> str:
    """The error in one line; a plugin's own wording where it is a PluginError."""
    text = " ".join(str(error).split())
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}".rstrip(": ")

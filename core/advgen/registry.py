"""Discovery of plugins: what is installed, what works, and why the rest does not. Torch-free.

A plugin is the module an entry point of the group ``advgen.plugins`` names, or a single file. One that misbehaves is
listed with its reason and never stops the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pluggy

from advgen import hooks
from advgen.errors import PluginError, nearest
from advgen.spec import API_VERSION, MIN_API_VERSION, PluginSpec

GROUP = "advgen.plugins"
BUILTIN = {"image": "advgen_image", "audio": "advgen_audio", "text": "advgen_text"}
FILE = "file"
ALIAS = "__plugin__"
TABLES = ("losses", "penalties", "metrics", "loggers")  # of a spec, name to "module:attr"

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

    def as_dict(self) -> dict[str, Any]:
        """JSON-able facts."""
        facts = {
            name: getattr(self, name) for name in ("name", "status", "reason", "distribution", "version", "module", "sha256")
        }
        return facts | {"path": str(self.path) if self.path else None, "summary": self.spec.summary if self.spec else None}


@dataclass(frozen=True)
class Registry:
    """Every plugin that was found, sorted by name; those that cannot be used too."""

    records: tuple[PluginRecord, ...]

    def get(self, name: str) -> PluginRecord:
        """The usable plugin of that name.

        Raises:
            PluginError: where it is unknown (with the nearest names) or cannot be used (with the reason).
        """
        return _usable(_pick(name, self.records))


def discover(*, load: bool = True) -> Registry:
    """Find every plugin; with ``load`` import their torch-free entry modules, one by one and isolated.

    Raises:
        PluginError: only under ``ADVGEN_STRICT_PLUGINS=1``, where a plugin cannot be used.
    """
    found = _found()
    records = tuple(_load(record) for record in found) if load else found
    if _strict():
        for record in records:
            if record.status not in ("ok", "found", "disabled"):
                _usable(record)
    return Registry(records)


def find_plugin(name_or_path: str) -> PluginRecord:
    """The usable plugin of that name or in that file; no other plugin is imported.

    Raises:
        PluginError: where it is unknown or cannot be used.
    """
    if name_or_path.endswith(".py") or "/" in name_or_path or os.sep in name_or_path:
        return load_file(Path(name_or_path))
    return _usable(_load(_pick(name_or_path, _found())))


def load_file(path: Path) -> PluginRecord:
    """Load a single-file plugin; its "module:attr" strings may name the file's stem, ``__plugin__`` or ``{__name__}``.

    Raises:
        PluginError: where the file cannot be read or used.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise PluginError(f"plugin file {path} cannot be read: {error.strerror or error}; check the path") from error
    sha256 = hashlib.sha256(source).hexdigest()
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    module_name = f"advgen_file_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{sha256[:12]}_{place}"
    record = PluginRecord(path.stem, "found", "", FILE, sha256[:12], None, module_name, path.resolve(), sha256)
    record = _usable(_inspect(record, lambda: _import_source(module_name, path, source)))
    assert record.spec is not None  # usable records carry one
    return dataclasses.replace(record, name=record.spec.name, spec=_rename_module(record.spec, path.stem, module_name))


def inspect_module(module: ModuleType) -> PluginRecord:
    """The usable plugin of an entry module that is already imported, installed or not.

    Raises:
        PluginError: where it cannot be used.
    """
    # The name is not known yet; the spec's own is as good as an entry point's.
    named = PluginRecord(module.__name__, "found", "", "module", "", None, module.__name__, Path(module.__file__ or "."))
    record = _usable(_inspect(named, lambda: module))
    assert record.spec is not None  # usable records carry one
    return dataclasses.replace(record, name=record.spec.name, path=None)


def resolve(reference: str) -> Any:
    """The object that a ``"module:attribute"`` string names.

    Raises:
        PluginError: naming the string and what is wrong with it.
    """
    module_name, _, attribute = reference.partition(":") if isinstance(reference, str) else ("", "", "")
    if not module_name or not attribute:
        raise PluginError(f"plugin reference {reference!r} is not of the form 'module:attribute'")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise PluginError(f"plugin reference {reference!r} cannot be imported: {_describe(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = [name for name in dir(found) if not name.startswith("_")]
            raise PluginError(f"plugin reference {reference!r} names no attribute {part!r}; {nearest(part, names)}")
        found = getattr(found, part)
    return found


def _found() -> tuple[PluginRecord, ...]:
    """Every entry point and built-in with its conflicts and switches settled, not imported."""
    candidates = sorted(_candidates(), key=lambda r: (r.name, not _is_builtin(r), r.distribution))
    owners: dict[str, PluginRecord] = {}
    return tuple(_settle(record, owners.setdefault(record.name, record)) for record in candidates)


def _candidates() -> Iterable[PluginRecord]:
    """Installed plugins, then the built-ins of a checkout that is not installed."""
    seen = set()
    for entry in entry_points(group=GROUP):
        distribution, version = (entry.dist.name, entry.dist.version) if entry.dist else ("unknown", "")
        key = (entry.name, entry.value, distribution)
        if key not in seen:  # the same metadata may lie on the path twice
            seen.add(key)
            yield PluginRecord(entry.name, "found", "", distribution, version, None, entry.value)
    from advgen import __version__

    for name, module in BUILTIN.items():
        if not any(key[:2] == (name, module) for key in seen) and importlib.util.find_spec(module):
            yield PluginRecord(name, "found", "", "advgen", __version__, None, module)


def _is_builtin(record: PluginRecord) -> bool:
    return BUILTIN.get(record.name) == record.module


def _settle(record: PluginRecord, owner: PluginRecord) -> PluginRecord:
    """Mark a record that lost its name to another, or that the environment switches off."""
    allowed, refused = os.environ.get("ADVGEN_PLUGINS"), os.environ.get("ADVGEN_DISABLE_PLUGINS", "")
    if allowed is not None and record.name not in _names(allowed):
        return dataclasses.replace(record, status="disabled", reason="not named in ADVGEN_PLUGINS")
    if record.name in _names(refused):
        return dataclasses.replace(record, status="disabled", reason="named in ADVGEN_DISABLE_PLUGINS")
    if owner is not record:
        reason = f"the name is already taken by {owner.origin} ({owner.module}); uninstall one of them"
        return dataclasses.replace(record, status="conflict", reason=reason)
    return record


def _names(text: str) -> set[str]:
    return {name.strip() for name in text.split(",")} - {""}


def _strict() -> bool:
    return os.environ.get("ADVGEN_STRICT_PLUGINS", "") not in ("", "0")


def _load(record: PluginRecord) -> PluginRecord:
    if record.status != "found":
        return record
    return _inspect(record, lambda: _entry_object(record.module))


def _entry_object(value: str) -> Any:
    """The module behind an entry point, or the object of a ``module:attribute`` one."""
    module_name, _, attribute = value.partition(":")
    found: Any = importlib.import_module(module_name.strip())
    for part in filter(None, attribute.strip().split(".")):
        found = getattr(found, part)
    return found


def _inspect(record: PluginRecord, load: Callable[[], Any]) -> PluginRecord:
    """Import one plugin, ask it for its spec and judge both; every failure becomes a status."""
    torch_before = "torch" in sys.modules
    try:
        # A plugin that prints must not spoil the JSON on standard output.
        with contextlib.redirect_stdout(sys.stderr):
            spec = _registered_spec(load(), record.module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, and what extension modules raise
        return dataclasses.replace(record, status="broken", reason=_describe(error))
    status, reason = _judge(spec, record)
    if status == "ok" and not torch_before and "torch" in sys.modules and record.path is None:
        reason = "its entry module imports torch, which slows every command; move heavy imports behind the spec's strings"
    return dataclasses.replace(record, status=status, reason=reason, spec=spec)


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
    for name in (*TABLES, "presets", "requires"):
        if not hasattr(getattr(spec, name), "items"):
            return f"spec.{name} is {getattr(spec, name)!r}, expected a mapping"
    if record.path is None and spec.name != record.name:
        return f"spec.name is {spec.name!r}, but the entry point is called {record.name!r}; make them equal"
    entries = {f"{table}.{key}": value for table in TABLES for key, value in getattr(spec, table).items()}
    for name, reference in {"config": spec.config, "modality": spec.modality, **entries}.items():
        if not isinstance(reference, str) or not re.fullmatch(r"[\w.]+:[\w.]+", reference):
            return f"spec.{name} is {reference!r}, expected 'module:attribute'"
    return ""


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _import_source(name: str, path: Path, source: bytes) -> ModuleType:
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


def _rename_module(spec: PluginSpec, stem: str, module: str) -> PluginSpec:
    """The spec of a single file with its strings pointing at the module it was imported as."""

    def point(reference: str) -> str:
        head, _, attribute = reference.partition(":")
        return f"{module}:{attribute}" if head in (stem, ALIAS) else reference

    tables: dict[str, Any] = {table: {k: point(v) for k, v in getattr(spec, table).items()} for table in TABLES}
    return dataclasses.replace(spec, config=point(spec.config), modality=point(spec.modality), **tables)


def _pick(name: str, records: Iterable[PluginRecord]) -> PluginRecord:
    """The record of that name, the one in use before those it displaced."""
    records = tuple(records)
    for record in sorted(records, key=lambda r: r.status == "conflict"):
        if record.name == name:
            return record
    known = nearest(name, {record.name for record in records})
    raise PluginError(f"no plugin is called {name!r}; {known}; see gen plugins list, or give a file: --plugin ./my_plugin.py")


def _usable(record: PluginRecord) -> PluginRecord:
    if record.status in ("ok", "found"):
        return record
    raise PluginError(f"plugin {record.name!r} of {record.origin} is {record.status}: {record.reason}")


def _describe(error: BaseException) -> str:
    """The error in one line; a plugin's own wording where it is a PluginError."""
    text = " ".join(str(error).split())
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}".rstrip(": ")

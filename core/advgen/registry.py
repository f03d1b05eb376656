"""Discovery of plugins: what is installed, what works, and why the rest does not. Torch-free.

A plugin is the module an entry point of the group ``advgen.plugins`` names, or a single file. One that misbehaves is
listed with its reason and never stops the others.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from advgen.blame import owner_of
from advgen.errors import PluginError, nearest
from advgen.global_state import kept
from advgen.inspection import PluginRecord as PluginRecord
from advgen.inspection import describe, import_source, inspect, rename_module, usable

GROUP = "advgen.plugins"
BUILTIN = {"image": "advgen_image", "audio": "advgen_audio", "text": "advgen_text"}
FILE = "file"


@dataclass(frozen=True)
class Registry:
    """Every plugin that was found, sorted by name; those that cannot be used too."""

    records: tuple[PluginRecord, ...]

    def get(self, name: str) -> PluginRecord:
        """The usable plugin of that name, or of that ``distribution:name``.

        Raises:
            PluginError: where it is unknown (with the nearest names) or cannot be used (with the reason).
        """
        record = _pick(name, self.records)
        return usable(_load(record) if record.spec is None else record)


def discover(*, load: bool = True) -> Registry:
    """Find every plugin; with ``load`` import their torch-free entry modules, one by one and isolated.

    Raises:
        PluginError: only under ``ADVGEN_STRICT_PLUGINS=1``, where a plugin cannot be used.
    """
    found = _found()
    records = tuple(_load(record) for record in found) if load else found
    refuse_if_strict([record.as_dict() for record in records])
    return Registry(records)


def refuse_if_strict(plugins: Iterable[Mapping[str, Any]]) -> None:
    """Raise under ``ADVGEN_STRICT_PLUGINS=1`` if any plugin cannot be used.

    Args:
        plugins: facts as from :meth:`PluginRecord.as_dict`.

    Raises:
        PluginError: naming the first such plugin and the reason.
    """
    for facts in plugins if _strict() else ():
        if facts["status"] not in ("ok", "found", "disabled"):
            origin = facts["path"] or f"{facts['distribution']} {facts['version']}".strip()
            raise PluginError(f"plugin {facts['name']!r} of {origin} is {facts['status']}: {facts['reason']}")


def load_installed(qualified_name: str) -> PluginRecord:
    """Load the installed plugin ``distribution:name`` and return it with its status, usable or not.

    Raises:
        PluginError: if no plugin has that name.
    """
    for record in _found():
        if record.qualified_name == qualified_name:
            return _load(record)
    raise PluginError(f"no plugin {qualified_name!r} is installed; gen plugins list shows the installed ones")


def find_plugin(name_or_path: str) -> PluginRecord:
    """The usable plugin of that name, of that ``distribution:name``, or in that file; no other plugin is imported.

    Raises:
        PluginError: where it is unknown or cannot be used.
    """
    if is_plugin_path(name_or_path):
        return load_file(Path(name_or_path))
    return usable(_load(_pick(name_or_path, _found())))


def find_installed(name: Any, named_by: object) -> PluginRecord:
    """Return the usable plugin with a name that was read from a file. Files can name only installed plugins.

    A file may come from anybody, so code from a path runs only if the user names that path in the call itself.

    Args:
        named_by: the file or folder that holds the name, for the refusal.

    Raises:
        PluginError: if the name is a path, or no usable plugin with that name is installed.
    """
    return usable(_load(_pick(installed_name(name, named_by), _found())))


def installed_name(name: Any, named_by: object) -> str:
    """Return a name that was read from a file, after checking that it is not a path.

    Raises:
        PluginError: if it is a path, or not a text.
    """
    if not isinstance(name, str) or is_plugin_path(name):
        file = name if isinstance(name, str) else "FILE.py"
        raise PluginError(
            f"{named_by} names the plugin {name!r}, expected the name of an installed plugin; a file's code runs only if you "
            f"name the file: add --plugin {file}"
        )
    return name


def is_plugin_path(name: str) -> bool:
    """Return whether a text is a plugin's file, not its name: it ends in ``.py`` or has a path separator."""
    return name.lower().endswith(".py") or any(separator in name for separator in ("/", "\\", os.sep, "\0"))


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
    record = usable(inspect(record, lambda: import_source(module_name, path, source)))
    assert record.spec is not None  # usable records carry one
    return dataclasses.replace(record, name=record.spec.name, spec=rename_module(record.spec, path.stem, module_name))


def inspect_module(module: ModuleType) -> PluginRecord:
    """The usable plugin of an entry module that is already imported, installed or not.

    Raises:
        PluginError: where it cannot be used.
    """
    # The name is not known yet; the spec's own is as good as an entry point's.
    named = PluginRecord(module.__name__, "found", "", "module", "", None, module.__name__, Path(module.__file__ or "."))
    record = usable(inspect(named, lambda: module))
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
        found: Any = sys.modules.get(module_name) or _import(module_name)
    except Exception as error:
        raise PluginError(f"plugin reference {reference!r} cannot be imported: {describe(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = [name for name in dir(found) if not name.startswith("_")]
            raise PluginError(f"plugin reference {reference!r} names no attribute {part!r}; {nearest(part, names)}")
        found = getattr(found, part)
    return found


def _import(module: str) -> ModuleType:
    """Import a module of a plugin, and restore the process-wide settings that it changes."""
    owner = owner_of(module)
    with kept(f"plugin {owner!r}" if owner else f"the module {module}"):
        return importlib.import_module(module)


def _found() -> tuple[PluginRecord, ...]:
    """Every entry point and built-in with its conflicts and switches settled, not imported."""
    candidates = sorted(_candidates(), key=lambda r: (r.name, not is_builtin(r), r.distribution))
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


def is_builtin(record: PluginRecord) -> bool:
    """Return whether a plugin belongs to this project, by its name and entry module."""
    return BUILTIN.get(record.name) == record.module


def _settle(record: PluginRecord, owner: PluginRecord) -> PluginRecord:
    """Mark a record that lost its name to another, or that the environment switches off."""
    allowed, refused = os.environ.get("ADVGEN_PLUGINS"), os.environ.get("ADVGEN_DISABLE_PLUGINS", "")
    if allowed is not None and record.name not in _names(allowed):
        return dataclasses.replace(record, status="disabled", reason="not named in ADVGEN_PLUGINS")
    if record.name in _names(refused):
        return dataclasses.replace(record, status="disabled", reason="named in ADVGEN_DISABLE_PLUGINS")
    if owner is not record:
        taken = f"the name is already taken by {owner.origin} ({owner.module})"
        reason = f"{taken}; uninstall one of them, or choose this one with --plugin {record.qualified_name}"
        return dataclasses.replace(record, status="conflict", reason=reason)
    return record


def _names(text: str) -> set[str]:
    return {name.strip() for name in text.split(",")} - {""}


def _strict() -> bool:
    return os.environ.get("ADVGEN_STRICT_PLUGINS", "") not in ("", "0")


def _load(record: PluginRecord) -> PluginRecord:
    if record.status != "found":
        return record
    return inspect(record, lambda: _entry_object(record.module))


def _entry_object(value: str) -> Any:
    """The module behind an entry point, or the object of a ``module:attribute`` one."""
    module_name, _, attribute = value.partition(":")
    found: Any = importlib.import_module(module_name.strip())
    for part in filter(None, attribute.strip().split(".")):
        found = getattr(found, part)
    return found


def _pick(name: str, records: Iterable[PluginRecord]) -> PluginRecord:
    """The record of that name, the one in use before those it displaced; of ``distribution:name``, exactly that one."""
    records = tuple(records)
    for record in sorted(records, key=lambda r: r.status == "conflict"):
        if record.name == name:
            return record
        if record.qualified_name == name:
            return dataclasses.replace(record, status="found", reason="") if record.status == "conflict" else record
    names = {record.qualified_name if ":" in name else record.name for record in records}
    known = nearest(name, names)
    raise PluginError(f"no plugin is called {name!r}; {known}; see gen plugins list, or give a file: --plugin ./my_plugin.py")

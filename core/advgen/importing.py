"""Runs made of what other toolkits trained. Plugins bring the importers; the core knows only how a run is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from torch.nn import Module

from advgen.api import describe, new_name
from advgen.blame import at
from advgen.border import require_callable
from advgen.config.load import Resolved, load_config, options_of
from advgen.contracts import Corpus
from advgen.errors import ConfigError, ContractError, DataError, nearest
from advgen.faults import instance_fault, json_fault
from advgen.files import file_sha256, user_path
from advgen.offers import offers
from advgen.registry import PluginRecord, find_plugin, resolve
from advgen.runs import RunFolder, checkpoint
from advgen.setup import modality_class
from advgen.state import tensors_of
from advgen.weights import load_network


@dataclass(frozen=True)
class Imported:
    """A foreign checkpoint as an importer read it.

    Args:
        source: the file that the weights come from.
        generator: the generator's tensors, by the names that this plugin's generator has.
        facts: what rebuilds the modality without data, as in ``Corpus``.
        preset: the plugin's preset that comes closest, to train on with.
        options: the plugin's options, over that preset; None unsets what the preset says.
        notes: what the user should know.
        discriminator: the discriminator's tensors, by the names of this plugin's; empty where none came along.
        optimizers: state by player, ``generator`` and ``discriminator``: ``INDEX.NAME`` to tensor, where INDEX counts the
            network's parameters that train, in their order. ``gen train --from`` goes on with it if networks and optimizer fit.
    """

    source: Path
    generator: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    preset: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    discriminator: Mapping[str, Tensor] = field(default_factory=dict)
    optimizers: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)


class Importer(Protocol):
    """Signature of the functions that a plugin's ``importers`` name."""

    def __call__(self, path: Path) -> Imported: ...


@dataclass(frozen=True)
class ImportResult:
    """A run that was made."""

    run: Path
    plugin: str
    source: Path
    num_tensors: int
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**vars(self), "run": str(self.run), "source": str(self.source), "notes": list(self.notes)}


def import_run(kind: str, path: Path | str, out: Path | str | None = None, plugin: str | None = None) -> ImportResult:
    """Make a run of a foreign checkpoint; ``kind`` names an importer of a plugin.

    Raises:
        GenError: where no plugin has such an importer, the file cannot be used, or ``out`` is taken.
    """
    record, read = find_importer(kind, plugin)
    source = user_path(path)
    if not source.exists():
        raise DataError(f"{source} does not exist; expected a checkpoint to import as {kind}")
    imported = read(source)
    if fault := instance_fault(imported, Imported) or json_fault(imported.facts, "facts"):
        raise ContractError(f"plugin {record.name!r}: importer {kind}{at(read)} returned {fault}")
    resolved = _configuration(record, imported)
    modality = modality_class(record)(options_of(record, resolved.config), imported.facts)
    parts = {"generator": _checked(modality.generator(), imported.generator, f"{imported.source}: the generator")}
    if imported.discriminator:
        made = _checked(modality.discriminator(), imported.discriminator, f"{imported.source}: the discriminator")
        parts["discriminator"] = made
    parts |= {f"{player}_optimizer": dict(state) for player, state in imported.optimizers.items() if state}
    digest = file_sha256(imported.source)
    folder = RunFolder(Path(out) if out is not None else new_name(record))
    new = not folder.path.exists()
    folder.create()
    with folder.discarded_where_nothing_is_saved(new):
        corpus = Corpus(imported.facts, {}, f"imported {digest}")
        origin = {"format": kind, "file": str(imported.source.absolute()), "sha256": digest}
        describe(folder, resolved, record, corpus, imported.notes, {"imported": origin, "ended": f"imported from {kind}"})
        checkpoint.save(folder.checkpoints, 0, parts, {})
    return ImportResult(folder.path, record.name, imported.source, len(imported.generator), imported.notes)


def _checked(network: Module, tensors: Mapping[str, Tensor], who: str) -> dict[str, Tensor]:
    load_network(network, dict(tensors), who)
    return tensors_of(network)


def _configuration(record: PluginRecord, imported: Imported) -> Resolved:
    """The preset with the importer's options; None takes back what the preset says."""
    options = {f"options.{name}": value for name, value in imported.options.items()}
    unset = [name for name, value in options.items() if value is None]
    return load_config(record, preset=imported.preset, overrides=[f"unset={json.dumps(unset)}"] if unset else [], cli=options)


def find_importer(kind: str, plugin: str | None) -> tuple[PluginRecord, Importer]:
    """The plugin that imports this kind, and its importer.

    Raises:
        ConfigError: where none does (listing the known), or several do.
    """
    record = find_plugin(plugin or _offering(kind))
    table = record.spec.importers if record.spec is not None else {}
    if kind not in table:
        raise ConfigError(f"no plugin imports {kind!r}; {nearest(kind, table)}")
    return record, importer_of(record, kind)


def importer_of(record: PluginRecord, kind: str) -> Importer:
    """Find the importer of a plugin for a format.

    Raises:
        PluginError: if it is not found, or cannot be called with only a path.
    """
    assert record.spec is not None  # the caller found the format in it
    importer: Importer = resolve(reference := record.spec.importers[kind])
    require_callable(importer, Importer.__call__, f"plugin {record.name!r}: importer {kind} ({reference})")
    return importer


def _offering(kind: str) -> str:
    """Return the qualified name of the one plugin that imports this kind."""
    found = offers()
    having = [each for each in found if kind in each.importers]
    if not having:
        known = nearest(kind, [name for each in found for name in each.importers])
        raise ConfigError(f"no plugin imports {kind!r}; {known}")
    if len(having) > 1:
        raise ConfigError(f"{kind!r} is imported by {', '.join(each.name for each in having)}; choose one with --plugin")
    return having[0].qualified_name

"""What a plugin declares. Nothing here imports torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from pydantic import BaseModel, ConfigDict

API_VERSION = 1
MIN_API_VERSION = 1
REFERENCE = {"reference": True}
"""Metadata of fields that hold one ``"module:attr"`` string or a table of them."""


class PluginConfig(BaseModel):
    """Base of a plugin's own options: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Args:
        name: what it is called in the data set's folder.
        sha256: of the file as published; None where what is published changes, so that it cannot be checked.
    """

    name: str
    url: str
    sha256: str | None = None


@dataclass(frozen=True)
class DataSet:
    """A public data set that ``--data NAME`` fetches.

    Args:
        home: the page that describes it.
        files: what is fetched; a single archive is unpacked.
        inside: the folder of the archive that holds the samples.
        licence: its name.
        terms: further terms for its users, in a sentence or two.
    """

    summary: str
    home: str
    licence: str
    files: tuple[RemoteFile, ...]
    inside: str = ""
    terms: str = ""


@dataclass(frozen=True, kw_only=True)
class PluginSpec:
    """Torch-free facts; the heavy parts are ``"module:attribute"`` strings, imported when a run needs them.

    Args:
        name: what users write after ``--plugin``.
        summary: one line for ``gen plugins list``.
        config: ``"module:attr"`` of a PluginConfig sub-class (its module must not import torch).
        modality: ``"module:attr"`` of a Modality sub-class.
        sampling: ``"module:attr"`` of a PluginConfig sub-class with further options of ``gen sample``; empty: none.
        presets: name to a partial run configuration (the same tree as a TOML file); ``default`` is always applied first.
        requires: modules that the plugin imports, mapped to the pip requirement that installs each. A run imports them before
            it reads data, and is refused if one does not load.
        optional: modules that the plugin can do without, each mapped to a sentence on the consequence if it does not load. A
            run that cannot load one prints that sentence and continues.
        losses, penalties, metrics, loggers: further table entries, name to ``"module:attr"``.
        importers: formats of other toolkits for ``gen import``, name to ``"module:attr"`` of a function path -> Imported.
        reads: patterns of the file names that the plugin reads, lower case, such as ``*.png``: tells whose data are given.
        datasets: public data sets by the name that ``--data`` takes.
        addresses: what ``--data`` takes besides paths, such as ``hub`` for ``hub:owner/name``; the plugin gets it whole, as
            ``DataRequest.address``.
        reads_zip: whether the plugin takes a zip archive as it is (``advgen.ZipFolder`` helps), so that it is not unpacked.
        hub_task: the task of its models as the Hugging Face hub names it, for model cards.
        intended_use: a sentence for model cards on the intended use of its models; empty: a general one.
        out_of_scope: a sentence for model cards on uses that are out of scope; empty: a general one.
        api_version: the plugin interface this plugin was written for.
    """

    name: str
    summary: str
    config: str = field(metadata=REFERENCE)
    modality: str = field(metadata=REFERENCE)
    sampling: str = field(default="", metadata=REFERENCE)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    requires: Mapping[str, str] = field(default_factory=dict)
    optional: Mapping[str, str] = field(default_factory=dict)
    losses: Mapping[str, str] = field(default_factory=dict, metadata=REFERENCE)
    penalties: Mapping[str, str] = field(default_factory=dict, metadata=REFERENCE)
    metrics: Mapping[str, str] = field(default_factory=dict, metadata=REFERENCE)
    loggers: Mapping[str, str] = field(default_factory=dict, metadata=REFERENCE)
    importers: Mapping[str, str] = field(default_factory=dict, metadata=REFERENCE)
    reads: Sequence[str] = ()
    datasets: Mapping[str, DataSet] = field(default_factory=dict)
    addresses: Sequence[str] = ()
    reads_zip: bool = False
    hub_task: str = ""
    intended_use: str = ""
    out_of_scope: str = ""
    api_version: int = API_VERSION


def references(spec: PluginSpec) -> dict[str, str]:
    """Return every nonempty ``"module:attr"`` string of a spec by its place in it, such as ``losses.soft_hinge``."""
    found: dict[str, str] = {}
    for name in reference_fields():
        value = getattr(spec, name)
        found |= {f"{name}.{key}": target for key, target in value.items()} if isinstance(value, Mapping) else {name: value}
    optional = {each.name for each in fields(PluginSpec) if each.default == ""}
    return {name: target for name, target in found.items() if target or name not in optional}


def with_references(spec: PluginSpec, change: Callable[[str], str]) -> PluginSpec:
    """Return the spec with a function applied to each of its ``"module:attr"`` strings."""
    values = {name: getattr(spec, name) for name in reference_fields()}
    changed: dict[str, Any] = {
        name: {key: change(target) for key, target in value.items()} if isinstance(value, Mapping) else change(value)
        for name, value in values.items()
    }
    return dataclasses.replace(spec, **changed)


def reference_fields() -> list[str]:
    """Return the names of the fields that hold ``"module:attr"`` strings."""
    return [each.name for each in fields(PluginSpec) if "reference" in each.metadata]

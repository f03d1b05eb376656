"""What a plugin declares. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

API_VERSION = 1
MIN_API_VERSION = 1


class PluginConfig(BaseModel):
    """Base of a plugin's own options: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


@dataclass(frozen=True, kw_only=True)
class PluginSpec:
    """Torch-free facts; the heavy parts are ``"module:attribute"`` strings, imported when a run needs them.

    Args:
        name: what users write after ``--plugin``.
        summary: one line for ``gen plugins list``.
        config: ``"module:attr"`` of a PluginConfig sub-class (its module must not import torch).
        modality: ``"module:attr"`` of a Modality sub-class.
        presets: name to a partial run configuration (the same tree as a TOML file); ``default`` is always applied first.
        requires: importable modules the plugin needs beyond advgen's own, mapped to the pip requirement that brings each.
        losses, penalties, metrics, loggers: further table entries, name to ``"module:attr"``.
        importers: formats of other toolkits for ``gen import``, name to ``"module:attr"`` of a function path -> Imported.
        api_version: the plugin interface this plugin was written for.
    """

    name: str
    summary: str
    config: str
    modality: str
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    requires: Mapping[str, str] = field(default_factory=dict)
    losses: Mapping[str, str] = field(default_factory=dict)
    penalties: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    loggers: Mapping[str, str] = field(default_factory=dict)
    importers: Mapping[str, str] = field(default_factory=dict)
    api_version: int = API_VERSION

"""The pluggy hooks of advgen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from advgen.spec import PluginSpec

PROJECT = "advgen"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def advgen_register() -> PluginSpec:  # type: ignore[empty-body]
    """Return the plugin's PluginSpec. The module that holds this hook must not import torch. Since 0.1, stable."""

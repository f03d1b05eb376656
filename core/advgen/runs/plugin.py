"""The plugin that a run was made with. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advgen.errors import CheckpointError, PluginError
from advgen.registry import PluginRecord, find_installed, find_plugin
from advgen.runs.folder import RunFolder, is_export, read_export


def find_plugin_at(path: Path | str, plugin: str | None) -> PluginRecord:
    """The plugin of a run, or of an exported generator.

    Raises:
        CheckpointError: where the folder is neither, or is damaged.
        PluginError: as ``find_run_plugin``.
    """
    if is_export(path):
        return find_plugin_of(read_export(path), Path(path), plugin)
    return find_run_plugin(RunFolder.existing(path), plugin)


def find_run_plugin(folder: RunFolder, plugin: str | None) -> PluginRecord:
    """The plugin of a run; one that came from a file must be named again.

    Raises:
        PluginError: where a file plugin is not named, or is not the one the run was made with.
    """
    return find_plugin_of(folder.read_json("run.json"), folder.path, plugin)


def find_plugin_of(about: Mapping[str, Any], path: Path, plugin: str | None) -> PluginRecord:
    """The plugin that ``about`` names, for what lies at a path.

    Raises:
        PluginError: as ``find_run_plugin``.
    """
    needed = ("plugin", "plugin_file") if about.get("plugin_sha256") else ("plugin",)
    if missing := [name for name in needed if not isinstance(about.get(name), str)]:
        raise CheckpointError(f"{path} does not say its {missing[0]}; the folder is damaged")
    if about.get("plugin_sha256") and plugin is None:
        raise PluginError(
            f"{path} was made with the plugin file {about['plugin_file']}; its code runs only when you name it: "
            f"add --plugin {path / 'plugin' / Path(about['plugin_file']).name}"
        )
    brought_by = about.get("plugin_distribution")
    named = f"{brought_by}:{about['plugin']}" if brought_by and not about.get("plugin_sha256") else about["plugin"]
    record = find_plugin(plugin) if plugin is not None else find_installed(named, path)
    if about.get("plugin_sha256") and record.sha256 != about["plugin_sha256"]:
        raise PluginError(f"{plugin} is not the file that made {path} (sha256 differs); name the copy in its folder plugin/")
    return record

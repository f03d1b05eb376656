"""The plugin that a run was made with. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from advgen.errors import PluginError
from advgen.registry import PluginRecord, find_plugin
from advgen.runs.folder import RunFolder


def find_run_plugin(folder: RunFolder, plugin: str | None) -> PluginRecord:
    """The plugin of a run; one that came from a file must be named again.

    Raises:
        PluginError: where a file plugin is not named, or is not the one the run was made with.
    """
    about = folder.read_json("run.json")
    if about.get("plugin_sha256") and plugin is None:
        raise PluginError(
            f"{folder.path} was made with the plugin file {about['plugin_file']}; its code runs only when you name it: "
            f"add --plugin {folder.path / 'plugin' / Path(about['plugin_file']).name}"
        )
    brought_by = about.get("plugin_distribution")
    named = f"{brought_by}:{about['plugin']}" if brought_by and not about.get("plugin_sha256") else about["plugin"]
    record = find_plugin(plugin or named)
    if about.get("plugin_sha256") and record.sha256 != about["plugin_sha256"]:
        raise PluginError(f"{plugin} is not the file that made {folder.path} (sha256 differs); name the copy in the run folder")
    return record

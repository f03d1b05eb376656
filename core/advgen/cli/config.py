"""``gen config``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from advgen.cli.output import ConfigOption, JsonFlag, PluginOption, PresetOption, SetOption, say, say_json, say_text, to_stderr
from advgen.cli.usage import Commands
from advgen.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from advgen.config.load import Resolved
    from advgen.registry import PluginRecord

app = typer.Typer(cls=Commands, help="Show and check configurations.", no_args_is_help=True)


@app.command("show")
def show(
    plugin: PluginOption = None,
    config: ConfigOption = None,
    preset: PresetOption = None,
    overrides: SetOption = None,
    as_json: JsonFlag = False,
) -> None:
    """The whole configuration as TOML, with the source of every value."""
    resolved = _resolved(plugin, config, preset, overrides)
    if as_json:
        say_json({"config": resolved.config.model_dump(mode="json"), "sources": resolved.sources})
        return
    from advgen.config.load import to_toml

    say_text(to_toml(resolved.config, resolved.sources).rstrip("\n"))


@app.command("schema")
def schema(plugin: PluginOption = None, config: ConfigOption = None) -> None:
    """JSON Schema of a configuration file, the plugin's own options included."""
    from advgen.config.load import UNSET, options_model
    from advgen.config.model import RunConfig

    with to_stderr():
        model = options_model(_record(plugin, config))
    whole = RunConfig.model_json_schema()
    own = model.model_json_schema(ref_template="#/$defs/options.{model}")
    definitions = {f"options.{name}": value for name, value in own.pop("$defs", {}).items()}
    whole["properties"]["options"] = own
    about = "Keys that this file leaves without a value, as TOML has no null."
    whole["properties"][UNSET] = {"type": "array", "items": {"type": "string"}, "description": about}
    whole.setdefault("$defs", {}).update(definitions)
    say_json(whole)


@app.command("validate")
def validate(
    plugin: PluginOption = None,
    config: ConfigOption = None,
    preset: PresetOption = None,
    overrides: SetOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Check a configuration without training: its keys, and the names of losses, penalties and schedules in it."""
    resolved = _resolved(plugin, config, preset, overrides)
    with to_stderr():
        from advgen.setup import make_objective

        make_objective(_record(plugin, config), resolved.config)
    if as_json:
        say_json({"valid": True, "plugin": resolved.config.plugin})
    else:
        say(f"the configuration of plugin {resolved.config.plugin!r} is valid")


def _record(plugin: str | None, config: list[Path] | None) -> PluginRecord:
    from advgen.config.load import named_plugin
    from advgen.registry import find_plugin

    name = plugin or named_plugin(config or [])
    if name is None:
        raise ConfigError("no plugin is named; give --plugin NAME (gen plugins list shows them) or plugin in a config file")
    return find_plugin(name)


def _resolved(plugin: str | None, config: list[Path] | None, preset: str | None, overrides: Any) -> Resolved:
    from advgen.config.load import load_config

    with to_stderr():
        return load_config(_record(plugin, config), preset=preset, files=config or [], overrides=overrides or [])

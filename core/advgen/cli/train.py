"""``gen train`` and ``gen resume``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from advgen.cli.options import PREFIX, given, plugin_command, train_flag, values_of
from advgen.cli.output import (
    ConfigOption,
    DeviceOption,
    JsonFlag,
    PluginOption,
    PresetOption,
    RunArgument,
    SetOption,
    TrustOption,
    say,
    say_json,
    to_stderr,
)
from advgen.errors import ConfigError

if TYPE_CHECKING:
    from advgen.registry import PluginRecord

StopAfter = Annotated[int | None, typer.Option("--stop-after", min=1, metavar="N", help="Save and end at step N of the plan.")]


def train(
    context: typer.Context,
    plugin: PluginOption = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="File, folder, archive or named set; default: the embedded corpus.")
    ] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, metavar="N", help="The run's plan, in steps.")] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", metavar="M", help="The run's plan, in minutes.")] = None,
    stop_after: StopAfter = None,
    from_run: Annotated[Path | None, typer.Option("--from", metavar="RUN", help="Start from another run's weights.")] = None,
    from_step: Annotated[
        int | None, typer.Option("--from-step", min=0, metavar="N", help="The saved step of --from; default the newest.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, metavar="S", help="Seed of everything random.")] = None,
    device: DeviceOption = "auto",
    out: Annotated[Path | None, typer.Option("--out", metavar="RUN", help="Run folder to make; default runs/NAME.")] = None,
    max_bad: Annotated[int | None, typer.Option("--max-bad", min=0, metavar="N", help="Unreadable files to skip.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a generator. [dim]A plugin's own options: gen train --plugin NAME --help[/dim]"""
    from advgen import api
    from advgen.config.load import named_plugin

    files = config or []
    plugin = plugin or named_plugin(files)
    if plugin is None:
        raise ConfigError("no plugin is named; give --plugin NAME (gen plugins list shows them) or plugin in a config file")
    with to_stderr():
        result = api.train(
            plugin,
            data=data,
            preset=preset,
            config_files=files,
            overrides=overrides or [],
            options=_typed(plugin, context.params),
            steps=steps,
            minutes=minutes,
            stop_after=stop_after,
            from_run=from_run,
            from_step=from_step,
            seed=seed,
            device=device,
            out=out,
            max_bad=max_bad,
        )
    _finish(result, as_json)


def resume(
    run: RunArgument,
    stop_after: StopAfter = None,
    device: DeviceOption = "auto",
    plugin: TrustOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Go on with a run to the end of its plan."""
    from advgen import api

    with to_stderr():
        result = api.resume(run, stop_after=stop_after, device=device, plugin=plugin)
    _finish(result, as_json)


def _finish(result: Any, as_json: bool) -> None:
    """Print the paths of the run and its samples and the next commands, then exit with the run's exit code."""
    if as_json:
        say_json(result.as_dict())
    else:
        say(f"{result.folder}: step {result.step}, {result.reason}")
        for title, lines in (("samples", result.samples), ("next", result.next_commands)):
            for index, line in enumerate(lines):
                say(f"  {title if not index else '':8} {line}")
    raise typer.Exit(result.exit_code)


class TrainCommand(TyperCommand):
    """``gen train`` with the flags of the plugin that the arguments name."""

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Build the real command from the plugin's model, then parse with it."""
        record = _plugin_in(args)
        command = _command(record)
        return command.make_context(info_name, args, parent, **extra)


def _plugin_in(args: list[str]) -> PluginRecord | None:
    """The plugin that the arguments, or a config file in them, name; None where there is none."""
    name, files = values_of(args, "--plugin", "-p")[-1:], values_of(args, "--config")
    if not name and not files:
        return None
    from advgen.config.load import named_plugin
    from advgen.registry import find_plugin

    found = name[0] if name else named_plugin([Path(file) for file in files])
    return find_plugin(found) if found else None


def _command(record: PluginRecord | None) -> Any:
    """The parser of ``gen train``: core flags, and one ``--options.NAME`` for each option of the plugin."""
    if record is None:
        return plugin_command("train", train, "", {}, train_flag)
    from advgen.config.load import options_model

    return plugin_command("train", train, record.name, options_model(record).model_fields, train_flag)


def _typed(plugin: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The plugin's options as values."""
    if not any(name.startswith(PREFIX) and text is not None for name, text in parameters.items()):
        return {}
    from advgen.config.load import options_model
    from advgen.registry import find_plugin

    return given(parameters, options_model(find_plugin(plugin)).model_fields)

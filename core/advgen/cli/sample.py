"""``gen sample`` and ``gen verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from advgen.cli.latents import TruncationOption
from advgen.cli.options import PREFIX, given, plugin_command, sample_flag, values_of
from advgen.cli.output import DeviceOption, JsonFlag, RunArgument, StepOption, TrustOption, say, say_json, to_stderr
from advgen.cli.seeds import parse_seeds
from advgen.data.labels import counted
from advgen.errors import ConfigError

if TYPE_CHECKING:
    from advgen.registry import PluginRecord
    from advgen.sampling import SampleResult


def sample(
    context: typer.Context,
    run: RunArgument,
    more: Annotated[list[Path] | None, typer.Argument(metavar="FILE", help="Further files of --from.")] = None,
    num_samples: Annotated[
        int | None, typer.Option("-n", "--num-samples", min=1, metavar="N", help="How many samples of one seed; default 16.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, metavar="S", help="Sample i depends on the seed and i alone; default 0.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="LIST", help="One sample of each seed instead, named by it: 0-63,70")
    ] = None,
    label: Annotated[str | None, typer.Option("--class", metavar="C", help="Name or index of the class.")] = None,
    truncation: TruncationOption = None,
    grid: Annotated[
        str | None,
        typer.Option("--grid", metavar="GRID", help="Overview: classes (a row a seed, a column a class), or RxC such as 4x8."),
    ] = None,
    latent: Annotated[
        Path | None, typer.Option("--from-latent", metavar="FILE", help="Render latents that gen project has found.")
    ] = None,
    sources: Annotated[
        list[Path] | None, typer.Option("--from", metavar="FILE", help="Files or folders to make samples from: --from a/*.wav")
    ] = None,
    file_format: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help="File format, one of the plugin's; wrong ones list them.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder; default inside the run.")] = None,
    step: StepOption = None,
    device: DeviceOption = "auto",
    plugin: TrustOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw samples: one file each in the modality's own format, and one overview. [dim]A run's further options: gen sample RUN
    --help[/dim]"""
    from advgen.sampling import convert_run, sample_run

    if more and not sources:
        raise ConfigError(f"gen sample got {', '.join(map(str, more))} besides the run; files to start from follow --from")
    place: dict[str, Any] = {"out": out, "device": device, "plugin": plugin, "file_format": file_format, "step": step}
    asked: dict[str, Any] = {"num_samples": num_samples, "seed": seed, "label": label, "truncation": truncation, "grid": grid}
    asked |= {"latent": latent, "seeds": None if seeds is None else parse_seeds(seeds)}
    options = _options(run, plugin, context.params)
    own: dict[str, Any] = {"options": options} if options else {}
    with to_stderr():
        if sources and options:
            raise ConfigError(f"--from draws nothing; leave {', '.join(map(sample_flag, options))} out")
        if sources:
            _refuse_beside_files(asked)
            result = convert_run(run, [*sources, *(more or [])], **place)
        else:
            result = sample_run(run, **asked, **own, **place)
    if as_json:
        say_json(result.as_dict())
    else:
        _tell(result, out)


def _tell(result: SampleResult, out: Path | None) -> None:
    """Say where the samples are, and what made room for them."""
    shown = result.overview or result.files
    say(f"{counted(result.num_samples)} in {shown[0].parent if shown else out}")
    for path in result.overview:
        say(f"  overview: {path}")
    if result.removed:
        say(f"  removed: {counted(len(result.removed), 'file')} of an earlier gen sample")


def _refuse_beside_files(asked: dict[str, Any]) -> None:
    """Refuse what says which samples are drawn, where none are.

    Raises:
        ConfigError: naming the option.
    """
    flags = {"seeds": "--seeds", "truncation": "--truncation", "grid": "--grid", "latent": "--from-latent"}
    if surplus := [flag for name, flag in flags.items() if asked[name] is not None]:
        raise ConfigError(f"{surplus[0]} says which samples are drawn, --from makes them of files; give one or the other")


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What may have been sampled with a watermark.")],
    run: Annotated[Path, typer.Option("--run", metavar="RUN", help="The run or exported folder that it would be from.")],
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="The key of the watermark.")],
    share: Annotated[
        float | None, typer.Option("--share", metavar="SHARE", help="As --watermark-share of gen sample; default as there.")
    ] = None,
    plugin: TrustOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Look for the watermark that gen sample --watermark KEY puts in: how far from chance (z), and how likely by chance (p)."""
    from advgen.sampling import verify_file

    options: dict[str, Any] = {"watermark": key} | ({} if share is None else {"watermark_share": share})
    with to_stderr():
        found = verify_file(run, file, options, plugin)
    if as_json:
        say_json(dict(found))
        return
    counts = ", ".join(f"{name} = {value}" for name, value in found.items() if name not in ("z", "p"))
    say(f"z = {found['z']:.2f}, p = {found['p']:.3g} ({counts})")


class SampleCommand(TyperCommand):
    """``gen sample`` with the flags of the run's plugin."""

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Build the real command from the plugin's model, then parse with it."""
        record = _plugin_in(args)
        fields = _fields(record)
        command = plugin_command("sample", sample, record.name if record else "", fields, sample_flag)
        given = list(args)  # which parsing uses up
        try:
            return command.make_context(info_name, args, parent, **extra)
        except Exception as complaint:
            if record is None and type(complaint).__name__ == "NoSuchOption":
                _check_run(given)
            raise


def _check_run(args: list[str]) -> None:
    """Refuse a first argument that is no run: an option that only a run's plugin has cannot be known without it."""
    from advgen.runs import RunFolder

    if args and not args[0].startswith("-") and not Path(args[0]).exists():
        RunFolder.existing(args[0])


def _plugin_in(args: list[str]) -> PluginRecord | None:
    """The plugin of the run or exported folder among the arguments; None where there is none, or its file is not named."""
    from advgen.runs.folder import is_export, is_run

    run = next((arg for arg in args if not arg.startswith("-") and (is_run(arg) or is_export(arg))), None)
    named = values_of(args, "--plugin", "-p")
    return None if run is None else _plugin_of(Path(run), named[-1] if named else None)


def _plugin_of(run: Path, plugin: str | None) -> PluginRecord | None:
    from advgen.errors import GenError
    from advgen.runs.plugin import find_plugin_at

    try:
        return find_plugin_at(run, plugin)
    except GenError:
        return None  # sampling says why


def _fields(record: PluginRecord | None) -> dict[str, Any]:
    if record is None:
        return {}
    from advgen.config.sampling import sampling_model

    model = sampling_model(record)
    return {} if model is None else dict(model.model_fields)


def _options(run: Path, plugin: str | None, parameters: dict[str, Any]) -> dict[str, Any]:
    """The plugin's sampling options as values."""
    if not any(name.startswith(PREFIX) and text is not None for name, text in parameters.items()):
        return {}
    return given(parameters, _fields(_plugin_of(run, plugin)))

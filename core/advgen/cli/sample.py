"""``gen sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from advgen.cli.latents import TruncationOption
from advgen.cli.output import DeviceOption, JsonFlag, RunArgument, StepOption, TrustOption, say, say_json, to_stderr
from advgen.cli.seeds import parse_seeds
from advgen.errors import ConfigError


def sample(
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
    """Draw samples: one file each in the modality's own format, and one overview."""
    from advgen.sampling import convert_run, sample_run

    if more and not sources:
        raise ConfigError(f"gen sample got {', '.join(map(str, more))} besides the run; files to start from follow --from")
    place: dict[str, Any] = {"out": out, "device": device, "plugin": plugin, "file_format": file_format, "step": step}
    given: dict[str, Any] = {"num_samples": num_samples, "seed": seed, "label": label, "truncation": truncation, "grid": grid}
    given |= {"latent": latent, "seeds": None if seeds is None else parse_seeds(seeds)}
    with to_stderr():
        if sources:
            _refuse_beside_files(given)
            result = convert_run(run, [*sources, *(more or [])], **place)
        else:
            result = sample_run(run, **given, **place)
    if as_json:
        say_json(result.as_dict())
        return
    shown = result.overview or result.files
    say(f"{result.num_samples} samples in {shown[0].parent if shown else out}")
    for path in result.overview:
        say(f"  overview: {path}")
    if result.removed:
        say(f"  removed: {len(result.removed)} files of an earlier gen sample")


def _refuse_beside_files(given: dict[str, Any]) -> None:
    """Refuse what says which samples are drawn, where none are.

    Raises:
        ConfigError: naming the option.
    """
    flags = {"seeds": "--seeds", "truncation": "--truncation", "grid": "--grid", "latent": "--from-latent"}
    if surplus := [flag for name, flag in flags.items() if given[name] is not None]:
        raise ConfigError(f"{surplus[0]} says which samples are drawn, --from makes them of files; give one or the other")

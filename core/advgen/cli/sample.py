"""``gen sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from advgen.cli.output import DeviceOption, JsonFlag, RunArgument, StepOption, TrustOption, say, say_json, to_stderr
from advgen.errors import ConfigError


def sample(
    run: RunArgument,
    more: Annotated[list[Path] | None, typer.Argument(metavar="FILE", help="Further files of --from.")] = None,
    num_samples: Annotated[int, typer.Option("-n", "--num-samples", min=1, metavar="N", help="How many samples.")] = 16,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="S", help="Sample i depends on the seed and i alone.")] = 0,
    label: Annotated[str | None, typer.Option("--class", metavar="C", help="Name or index of the class.")] = None,
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
    with to_stderr():
        if sources:
            result = convert_run(run, [*sources, *(more or [])], **place)
            num_samples = len(result.files)
        else:
            result = sample_run(run, num_samples=num_samples, seed=seed, label=label, **place)
    if as_json:
        say_json(result.as_dict())
        return
    folder = result.files[0].parent if result.files else out
    say(f"{num_samples} samples in {folder}")
    for path in result.overview:
        say(f"  overview: {path}")
    if result.removed:
        say(f"  removed: {len(result.removed)} files of an earlier gen sample")

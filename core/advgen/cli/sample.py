"""``gen sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advgen.cli.output import DeviceOption, JsonFlag, RunArgument, TrustOption, say, say_json, to_stderr


def sample(
    run: RunArgument,
    num_samples: Annotated[int, typer.Option("-n", "--num-samples", min=1, metavar="N", help="How many samples.")] = 16,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="S", help="Sample i depends on the seed and i alone.")] = 0,
    label: Annotated[str | None, typer.Option("--class", metavar="C", help="Name or index of the class.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder; default inside the run.")] = None,
    device: DeviceOption = "auto",
    plugin: TrustOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw samples: one file each in the modality's own format, and one overview."""
    from advgen.sampling import sample_run

    with to_stderr():
        result = sample_run(run, num_samples=num_samples, seed=seed, label=label, out=out, device=device, plugin=plugin)
    if as_json:
        say_json(result.as_dict())
        return
    folder = result.files[0].parent if result.files else out
    say(f"{num_samples} samples in {folder}")
    overview = result.overview if isinstance(result.overview, list | tuple) else [result.overview]
    for path in overview:
        say(f"  overview: {path}")

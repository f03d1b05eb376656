"""``gen interpolate``, ``gen mix`` and ``gen project``: tools that go between samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from advgen.cli.output import DeviceOption, JsonFlag, RunArgument, StepOption, TrustOption, say, say_json, to_stderr
from advgen.cli.seeds import parse_seeds
from advgen.data.labels import counted
from advgen.terminal import tell

ClassOption = Annotated[str | None, typer.Option("--class", metavar="C", help="Name or index of the class of all samples.")]
TruncationOption = Annotated[
    float | None,
    typer.Option("--truncation", min=0, max=2, metavar="PSI", help="Draw samples towards their mean: 1 leaves them, 0 is it."),
]
OutOption = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder; default inside the run.")]


def interpolate(
    run: RunArgument,
    seeds: Annotated[str, typer.Option("--seeds", metavar="LIST", help="Stations of the walk, such as 0-3,70.")] = "0-3",
    label: ClassOption = None,
    classes: Annotated[
        str | None,
        typer.Option("--classes", metavar="LIST", help="Walk from class to class instead, for each seed: all, or A,B,C."),
    ] = None,
    frames: Annotated[int, typer.Option("--frames", min=1, metavar="N", help="Steps from one station to the next.")] = 24,
    columns: Annotated[int, typer.Option("--columns", min=2, metavar="N", help="Steps that a row of the picture shows.")] = 9,
    loop: Annotated[bool, typer.Option("--loop", help="Come back to the first station.")] = False,
    kind: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help="Format of the animation; images: gif or apng.")
    ] = None,
    truncation: TruncationOption = None,
    out: OutOption = None,
    step: StepOption = None,
    device: DeviceOption = "auto",
    plugin: TrustOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Walk from sample to sample: a picture, and an animation where the plugin makes one."""
    from advgen.latent.between import Walk, interpolate_run

    stations, named = parse_seeds(seeds), None if classes is None else [name.strip() for name in classes.split(",")]
    with to_stderr():
        wanted = Walk(stations, label, named, frames, columns, loop, kind, truncation)
        result = interpolate_run(run, wanted, out, device, plugin, step)
    _tell(result, as_json)


def mix(
    run: RunArgument,
    coarse: Annotated[str, typer.Option("--coarse", metavar="LIST", help="Seeds of the rows: coarse styles.")] = "0-3",
    fine: Annotated[str, typer.Option("--fine", metavar="LIST", help="Seeds of the columns: fine styles.")] = "10-15",
    from_layer: Annotated[
        int | None, typer.Option("--from-layer", metavar="K", help="First layer with fine styles; default after a third.")
    ] = None,
    label: ClassOption = None,
    truncation: TruncationOption = None,
    out: OutOption = None,
    step: StepOption = None,
    device: DeviceOption = "auto",
    plugin: TrustOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Mix styles of two samples: a table, for networks whose layers take a style each (images: stylegan2)."""
    from advgen.latent.between import mix_run

    sides = parse_seeds(coarse, "--coarse"), parse_seeds(fine, "--fine")
    with to_stderr():
        result = mix_run(run, *sides, label, from_layer, truncation, out, device, plugin, step)
    _tell(result, as_json)


def project(
    run: RunArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What is to be reproduced: for images, an image file.")],
    steps: Annotated[int, typer.Option("--steps", min=1, metavar="N", help="Updates of the latent.")] = 400,
    starts: Annotated[int, typer.Option("--starts", min=1, max=64, metavar="N", help="Latents improved side by side.")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="S", help="Of the samples that the search begins with.")] = 0,
    label: ClassOption = None,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", metavar="R", help="In units of the latents' spread.")
    ] = 0.1,
    value_weight: Annotated[
        float, typer.Option("--value-weight", metavar="W", help="Of the distance of values (pixels) beside that of features.")
    ] = 1.0,
    out: OutOption = None,
    step: StepOption = None,
    device: DeviceOption = "auto",
    plugin: TrustOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Find the latent that reproduces a file, by what the run's own discriminator sees."""
    from advgen.latent.projecting import project_run
    from advgen.latent.search import Search

    wanted = Search(steps, starts, seed, None, learning_rate, value_weight)
    with to_stderr():
        result = project_run(run, file, wanted, label, out, device, plugin, step, say=tell)
    if as_json:
        say_json(result.as_dict())
        return
    say(f"projection in {result.latent.parent} ({result.seconds:g} s)")
    for remark in result.remarks:
        say(f"  note: {file} was {remark}")
    for path in result.files:
        if path != result.latent:
            say(f"  {path}")
    say(f"distances from {file}, 0 where equal (typical: a middling sample, nearest: where the search began):")
    for name in ("typical", "nearest", "found"):
        distances = result.distances[name]
        say(f"  {name:8} features {distances['features']:.4f}  values {distances['values']:.4f}")
    say(f"  again: gen sample {run} --from-latent {result.latent}")


def _tell(result: Any, as_json: bool) -> None:
    if as_json:
        say_json(result.as_dict())
        return
    files = [*result.overview, *result.files]
    say(f"{counted(len(files), 'file')} of {counted(result.num_samples)} in {files[0].parent}")
    for path in files:
        say(f"  {path}")

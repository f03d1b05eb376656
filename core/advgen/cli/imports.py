"""``gen import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advgen.cli.output import JsonFlag, PluginOption, say, say_json, to_stderr


def import_checkpoint(
    kind: Annotated[str, typer.Argument(metavar="FORMAT", help="An importer of a plugin, such as hifigan.")],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The checkpoint, or the folder that holds it.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="RUN", help="Run folder to make; default below runs/.")] = None,
    plugin: PluginOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a run of what another toolkit trained, to sample from and to train on from.

    Pickles are read by a process of their own that takes tensors alone and runs no code from them.
    """
    from advgen.importing import import_run

    with to_stderr():
        result = import_run(kind, path, out, plugin)
    if as_json:
        say_json(result.as_dict())
        return
    for note in result.notes:
        say(note)
    say(f"run folder: {result.run} ({result.num_tensors} tensors of {result.source})")
    say(f"train on: gen train --config {result.run / 'config.toml'} --data DATA --from {result.run}")

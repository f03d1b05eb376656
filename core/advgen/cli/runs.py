"""``gen runs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advgen.cli.output import JsonFlag, RunArgument, cell, fact_lines, say, say_json, table, to_stderr

app = typer.Typer(help="List and describe runs.", no_args_is_help=True)


@app.command("list")
def list_runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder that holds runs.")] = Path("runs"),
    as_json: JsonFlag = False,
) -> None:
    """The runs in a folder."""
    from advgen import runs

    with to_stderr():
        found = runs.list_runs(folder)
    if as_json:
        say_json(found)
    elif not found:
        say(f"no runs in {folder}")
    else:
        names = [name for name in found[0] if all(not isinstance(run.get(name), dict | list) for run in found)]
        say(table([[cell(run.get(name)) for name in names] for run in found], names))


@app.command("show")
def show(run: RunArgument, as_json: JsonFlag = False) -> None:
    """What a run is made of and how far it is."""
    from advgen import runs

    with to_stderr():
        facts = runs.describe_run(run)
    if as_json:
        say_json(facts)
    else:
        for line in fact_lines(facts):
            say(line)

"""``gen runs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advgen.cli.output import JsonFlag, RunArgument, cell, fact_lines, say, say_json, table, to_stderr
from advgen.cli.usage import Commands
from advgen.errors import ConfigError
from advgen.terminal import tell

WAY = "gen sample RUN --step {step} and gen evaluate RUN --step {step} take {it}"

app = typer.Typer(cls=Commands, help="List and describe runs.", no_args_is_help=True)


@app.command("list")
def list_runs(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Folder that holds runs; default runs.", show_default=False)
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """The runs in a folder."""
    from advgen import runs

    with to_stderr():
        _check(folder)
        place = folder or Path("runs")
        found = runs.list_runs(place)
        diverged = [run["path"] for run in found if run.get("diverged")]
        if diverged:
            tell(f"warning: {', '.join(diverged)} diverged; gen runs show RUN tells what to use instead")
    if as_json:
        say_json(found)
    elif not found:
        say(f"no runs in {place}")
    else:
        names = [name for name in found[0] if not any(isinstance(run.get(name), dict | list) for run in found)]
        names = [name for name in names if any(run.get(name) is not None for run in found)]
        say(*table([[cell(run.get(name)) for name in names] for run in found], names))


@app.command("show")
def show(run: RunArgument, as_json: JsonFlag = False) -> None:
    """What a run is made of and how far it is; RUN may be a name of gen runs list."""
    from advgen import runs

    run = runs.by_name(run)
    with to_stderr():
        facts = runs.describe_run(run)
        if facts.get("diverged") and (warning := runs.warning_of_divergence(run, WAY)):
            tell(warning)
    if as_json:
        say_json(facts)
    else:
        say(*fact_lines(facts))


def _check(folder: Path | None) -> None:
    """Refuse a folder that the user named and that cannot hold runs.

    Raises:
        ConfigError: where it does not exist, or is a file.
    """
    if folder is not None and not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise ConfigError(f"{folder} {what}; expected a folder that holds runs, such as runs/")
    if folder is not None and (folder / "run.json").is_file():
        raise ConfigError(f"{folder} is a run itself; use: gen runs show {folder}, or gen runs list {folder.parent}")

"""The command line. Importing it imports no torch, no pydantic and no plugin; commands import what they need."""

from __future__ import annotations

import atexit
import os
import sys
from typing import Annotated

import typer

from advgen import interrupts
from advgen.cli import config, data, evaluate, imports, plugins, runs, sample, train
from advgen.errors import GenError

app = typer.Typer(
    name="gen",
    help="Train, sample, examine and ship adversarial generators of any modality.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("train", cls=train.TrainCommand)(train.train)
app.command("resume")(train.resume)
app.command("sample")(sample.sample)
app.command("evaluate")(evaluate.evaluate)
app.command("import")(imports.import_checkpoint)
app.add_typer(data.app, name="data")
app.add_typer(plugins.app, name="plugins")
app.add_typer(config.app, name="config")
app.add_typer(runs.app, name="runs")


def _print_version(wanted: bool) -> None:
    if wanted:
        from advgen import __version__

        typer.echo(f"gen {__version__}")
        raise typer.Exit


VersionFlag = Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")]


@app.callback()
def gen(
    version: VersionFlag = False,
) -> None:
    """Train, sample, examine and ship adversarial generators of any modality."""


def command() -> None:
    """The process ``gen``: :func:`main`, whose exit code 130 is kept.

    Python ends a process by SIGINT, whatever its exit code, once a Ctrl-C fell into code compiled from a string
    (data classes are), even where it was caught.
    """
    try:
        main()
    except SystemExit as ended:
        if ended.code != interrupts.INTERRUPTED:
            raise
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(interrupts.INTERRUPTED)


def main(arguments: list[str] | None = None) -> None:
    """Run ``gen``; a refusal is one line on standard error and its exit code. ``ADVGEN_DEBUG=1`` shows the trace."""
    with interrupts.watched():
        try:
            app(args=arguments, prog_name="gen")
        except SystemExit as ended:
            if ended.code == interrupts.INTERRUPTED and interrupts.asked():  # training tells of its own interruptions
                print(interrupts.outcome(), file=sys.stderr)
            raise
        except KeyboardInterrupt:  # before or after the command itself
            print(interrupts.outcome(), file=sys.stderr)
            sys.exit(interrupts.INTERRUPTED)
        except Exception as error:
            if os.environ.get("ADVGEN_DEBUG", "") not in ("", "0"):
                raise
            sys.exit(_report(error))


def _report(error: Exception) -> int:
    if interrupts.asked():  # an import that was cut short fails in some odd way
        print(interrupts.outcome(), file=sys.stderr)
        return interrupts.INTERRUPTED
    if isinstance(error, GenError):
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    text = " ".join(f"{type(error).__name__}: {error}".split())
    print(f"error: unexpected {text}; ADVGEN_DEBUG=1 shows the trace", file=sys.stderr)
    return 1

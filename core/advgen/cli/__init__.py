"""The command line. Importing it imports no torch, no pydantic and no plugin; commands import what they need."""

from __future__ import annotations

import atexit
import os
import sys
from typing import Annotated

import typer

from advgen import interrupts
from advgen.blame import blamed
from advgen.cli import config, data, env, evaluate, export, imports, latents, plugins, runs, sample, train, usage
from advgen.cli.output import escape_unknown_characters
from advgen.errors import ConfigError, GenError
from advgen.terminal import one_sentence, tell

app = typer.Typer(
    name="gen",
    cls=usage.Commands,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Train, sample, examine and ship adversarial generators of any modality.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("train", cls=train.TrainCommand)(train.train)
app.command("resume")(train.resume)
app.command("sample", cls=sample.SampleCommand)(sample.sample)
app.command("interpolate")(latents.interpolate)
app.command("mix")(latents.mix)
app.command("project")(latents.project)
app.command("verify")(sample.verify)
app.command("evaluate")(evaluate.evaluate)
app.command("sweep")(evaluate.sweep)
app.command("export")(export.export)
app.command("import")(imports.import_checkpoint)
app.command("env")(env.env)
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
    """The process ``gen``: :func:`main`, left by its exit code at once where Python would change that code.

    Python ends a process by SIGINT, whatever its exit code, once a Ctrl-C fell into code compiled from a string
    (data classes are), even where it was caught. And a rank of several now and then aborts in the clean-up of its backend,
    long after everything is saved, which torchrun takes for a failure of all.
    """
    escape_unknown_characters()
    try:
        main()
    except SystemExit as ended:
        one_of_several = os.environ.get("WORLD_SIZE", "1") != "1"
        if ended.code != interrupts.INTERRUPTED and not one_of_several:
            raise
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(ended.code or 0))


def main(arguments: list[str] | None = None) -> None:
    """Run ``gen``; a refusal is one line on standard error and its exit code. ``ADVGEN_DEBUG=1`` shows the trace."""
    with interrupts.watched():
        try:
            code = int(app(args=arguments, prog_name="gen", standalone_mode=False) or 0)
            asked = interrupts.asked()  # training tells of its own interruptions
        except KeyboardInterrupt:  # before or after the command itself
            code, asked = interrupts.INTERRUPTED, True
        except Exception as error:
            if os.environ.get("ADVGEN_DEBUG", "") not in ("", "0"):
                raise
            code, asked = _report(error), interrupts.asked()
        if code == interrupts.INTERRUPTED and asked:
            tell(interrupts.outcome())
    sys.exit(code)


def _report(error: Exception) -> int:
    """Tell what ended the command in one line; returns the exit code."""
    if interrupts.asked():  # an import that was cut short fails in some odd way
        return interrupts.INTERRUPTED
    if isinstance(error, GenError):
        text, code = str(error), error.exit_code
    elif isinstance(error, usage.Complaint):
        if usage.asks_for_help(error):
            return ConfigError.exit_code
        text, code = usage.explained(error), ConfigError.exit_code
    else:
        where = f" in {blame}" if (blame := blamed(error)) else ""
        said = f": {error}" if str(error) else ""
        text, code = f"unexpected {type(error).__name__}{where}{said}; ADVGEN_DEBUG=1 shows the trace", 1
    print("error:", one_sentence(text), file=sys.stderr)
    return code

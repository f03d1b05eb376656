"""What commands print: JSON or text on standard output, from the first process only."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from advgen.terminal import guard_messages, one_sentence, visible, visible_json

JsonFlag = Annotated[
    bool, typer.Option("--json", metavar="", help="Print JSON on standard output; all else goes to standard error.")
]
PluginOption = Annotated[
    str | None,
    typer.Option("--plugin", "-p", metavar="NAME|FILE.py", help="An installed plugin, or a file such as ./mine.py."),
]
PresetOption = Annotated[str | None, typer.Option("--preset", metavar="NAME", help="Preset of the plugin, over its default.")]
ConfigOption = Annotated[
    list[Path] | None, typer.Option("--config", metavar="FILE", help="TOML file; may be repeated, later wins.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key: generator.learning_rate=1e-4.")
]
DeviceOption = Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]
StepOption = Annotated[
    int | None, typer.Option("--step", min=0, metavar="N", help="A saved step (gen runs show RUN); default the newest.")
]
TrustOption = Annotated[
    str | None, typer.Option("--plugin", "-p", metavar="NAME|FILE.py", help="Plugin file of a run that was made with one.")
]


class _Lines(logging.Handler):
    """A log record as one plain line on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        print(one_sentence(self.format(record)), file=sys.stderr)


@contextlib.contextmanager
def to_stderr() -> Iterator[None]:
    """Whatever libraries and plugins print goes to standard error, and so do the core's own warnings."""
    log, handler = logging.getLogger("advgen"), _Lines(logging.WARNING)
    log.addHandler(handler)
    propagated, log.propagate = log.propagate, False  # else they come twice where a plugin has set up logging
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagated


def escape_unknown_characters() -> None:
    """Print characters that a terminal or pipe cannot encode as escapes, such as ``\\u4e2d``, instead of failing.

    Control characters in messages that Python itself prints are escaped too.
    """
    guard_messages()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def say(*lines: object) -> None:
    """Print lines on standard output, under torchrun from rank 0 only; control characters in them become escapes."""
    _print("\n".join(map(visible, lines)))


def say_text(text: str) -> None:
    """Print a text of several lines as :func:`say` does."""
    say(*text.split("\n"))


def _print(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        typer.echo(text)


def say_json(value: Any) -> None:
    """Print strict JSON: numbers that are not finite become null, paths become strings, control characters escapes."""
    escaped = not codecs.lookup(getattr(sys.stdout, "encoding", None) or "ascii").name.startswith("utf")
    _print(visible_json(json.dumps(_plain(value), indent=2, ensure_ascii=escaped, allow_nan=False)))


def table(rows: list[list[str]], header: list[str]) -> list[str]:
    """Arrange rows in left-aligned columns, one line per row; widths count the characters after escaping."""
    shown = [[visible(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in shown) for column in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]


def cell(value: Any) -> str:
    """A value as a table shows it."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def fact_lines(facts: dict[str, Any], indent: str = "") -> list[str]:
    """Nested facts, one a line; what is not known is left out."""
    lines: list[str] = []
    for name, value in facts.items():
        if value is None:
            continue
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *fact_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {cell(value)}")
    return lines


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)

"""Text on its way to a terminal, a log line or a tag: characters that act instead of showing become escapes. Torch-free.

File names, class names, configurations, summaries and error messages come from anybody. A terminal obeys control characters
in them: they move the cursor, change colors or the window's title, and turn the order of letters around.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
import warnings
from types import TracebackType
from typing import Any

ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]")
"""Control characters, separators of lines and paragraphs, overrides and isolates of direction, and halves of characters."""
NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: object) -> str:
    """Return text on one line with every character that a terminal would obey as an escape, such as ``\\x1b``."""
    return ACTING.sub(lambda found: NAMED.get(found[0]) or _escape(found[0]), str(text))


def visible_lines(text: object) -> str:
    """Return text as :func:`visible` does, except that its lines stay lines."""
    return "\n".join(visible(line) for line in str(text).split("\n"))


def one_sentence(text: object) -> str:
    """Return a message that may span lines as one line, with spaces between them."""
    return visible(" ".join(str(text).splitlines()))


def visible_json(text: str, *, halves: bool = True) -> str:
    """Return JSON, or a TOML string, with such characters as the escapes of that notation.

    Args:
        halves: escape halves of characters too, which TOML does not know.
    """

    def escape(found: re.Match[str]) -> str:
        kept = found[0] == "\n" or (not halves and found[0] >= "\ud800" and found[0] <= "\udfff")
        return found[0] if kept else f"\\u{ord(found[0]):04x}"

    return ACTING.sub(escape, text)


def tell(text: object) -> None:
    """Print one line on standard error."""
    print(visible(text), file=sys.stderr, flush=True)


class OneLine(logging.Formatter):
    """A log record as one line."""

    def format(self, record: logging.LogRecord) -> str:
        return one_sentence(super().format(record))


def guard_messages() -> None:
    """Let what Python itself prints (traces, warnings, records of libraries that nobody handles) obey nothing either."""
    plain = warnings.formatwarning

    def format_warning(*args: Any, **options: Any) -> str:
        return visible_lines(plain(*args, **options))

    def show_trace(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        print(visible_lines("".join(traceback.format_exception(kind, error, trace)).rstrip("\n")), file=sys.stderr)

    warnings.formatwarning = format_warning
    sys.excepthook = show_trace
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(OneLine())


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"

"""Escapes for control characters in text for a terminal, a log line or a tag. Torch-free.

File names, class names, configurations, summaries and error messages come from anybody. A terminal obeys control characters
in them: they move the cursor, change colors or the window's title, and reverse the order of letters.
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
"""Control characters, line and paragraph separators, direction overrides and isolates, and surrogates."""
NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: object) -> str:
    """Return text on one line, with characters that a terminal would obey written as escapes, such as ``\\x1b``."""
    return ACTING.sub(lambda found: NAMED.get(found[0]) or _escape(found[0]), str(text))


def visible_lines(text: object) -> str:
    """Return text as :func:`visible` does, except that its lines stay lines."""
    return "\n".join(visible(line) for line in str(text).split("\n"))


def one_sentence(text: object) -> str:
    """Return a message that may span lines as one line, with spaces between them."""
    return visible(" ".join(str(text).splitlines()))


def visible_json(text: str, *, halves: bool = True) -> str:
    """Escape such characters in JSON or a TOML string, in the notation of that format.

    Args:
        halves: also escape surrogates, which TOML does not allow.
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
    """Escape control characters in the output of Python itself: traces, warnings, unhandled log records."""
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

"""Readers for small untrusted files, with limits on size, depth and numbers. Torch-free."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOST_BYTES = 64 * 2**20
MOST_ENTRIES = 4_000_000
"""Most entries in all lists and tables of a file together. Each takes up to 100 bytes of memory."""
DEEPEST = 64
MOST_TOLD = 80
LARGEST = 2**63


def read_text(path: Path, most_bytes: int = MOST_BYTES) -> str:
    """Read a UTF-8 file of limited size.

    Raises:
        OSError: if the system refuses.
        ValueError: with a reason in words, if the file is too large, not an ordinary file, or not UTF-8.
    """
    about = path.stat()
    if not stat.S_ISREG(about.st_mode) and not stat.S_ISDIR(about.st_mode):  # reading a pipe could block forever
        raise ValueError("it is not an ordinary file")
    with path.open("rb") as handle:
        content = handle.read(most_bytes + 1) if about.st_size <= most_bytes else None
    if content is None or len(content) > most_bytes:
        raise ValueError(f"it has {about.st_size:,} bytes, expected at most {most_bytes:,}")
    return content.decode(encoding="utf-8")


def read_json(path: Path, most_bytes: int = MOST_BYTES, *, not_finite: bool = False) -> dict[str, Any]:
    """Read a JSON file that holds a table; arguments and errors as for ``parse_json`` and ``read_text``."""
    content = parse_json(read_text(path, most_bytes), not_finite=not_finite)
    if not isinstance(content, dict):
        raise ValueError(f"it holds {type(content).__name__}, expected a table")
    return content


def parse_json(text: str, *, not_finite: bool = False) -> Any:
    """Parse JSON strictly: no duplicate keys, no huge numbers, limited depth and length.

    Args:
        not_finite: accept NaN and infinities, which Python writes although JSON has none.

    Raises:
        ValueError: with a reason in words.
    """
    if (num_entries := sum(map(text.count, ",[{"))) > MOST_ENTRIES:
        raise ValueError(f"it has {num_entries:,} entries, expected at most {MOST_ENTRIES:,}")
    real: Callable[[str], float] = float if not_finite else _finite
    try:
        content = json.loads(text, object_pairs_hook=_table, parse_int=_whole, parse_float=real, parse_constant=real)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep") from error
    if _deeper(content):
        raise ValueError(f"it is nested more than {DEEPEST} levels deep")
    return content


def told(text: object) -> str:
    """Shorten a name or value from a foreign file for a message, and escape characters that cannot be printed."""
    words = text if isinstance(text, str) else repr(text)
    words = words if words.isprintable() else ascii(words)[1:-1]
    return words if len(words) <= MOST_TOLD else f"{words[:MOST_TOLD]}..."


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in table if names.count(name) > 1)
        raise ValueError(f"the key {told(twice)!r} appears twice in one table")
    return table


def _whole(text: str) -> int:
    if len(text) > len(str(LARGEST)) or abs(number := int(text)) >= LARGEST:
        raise ValueError(f"the number {text[:20]}... has {len(text)} digits, expected one below 2^63")
    return number


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"it holds the number {text[:20]}, expected finite ones")
    return number


def _deeper(content: Any) -> bool:
    """Return whether tables and lists are nested deeper than ``DEEPEST``."""
    level = [content]
    for _ in range(DEEPEST + 1):
        inside = (node.values() if isinstance(node, dict) else node for node in level if isinstance(node, dict | list))
        level = [value for values in inside for value in values if isinstance(value, dict | list)]
        if not level:
            return False
    return True

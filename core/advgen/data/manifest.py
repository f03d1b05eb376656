"""Lists of files as data: one row a sample, for any plugin whose samples are files. Torch-free."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from advgen.data.archives import own_folder
from advgen.errors import DataError
from advgen.files import user_path

SUFFIXES = (".csv", ".tsv", ".jsonl")
COLUMNS = ("path", "label", "start", "duration", "split")
SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation"}
SPLITS |= {"test": "test"}
LONGEST_LINE = 2**20
LONGEST_REASON = 500

Refuse = Callable[[str, str], None]
"""Takes the name of what cannot be used and the reason; raises where there are too many."""


@dataclass(frozen=True)
class ManifestRow:
    """One row, checked.

    Args:
        name: what tells it from other rows: the path as written, and the part of the file where one is named.
        path: the file, which exists.
        label: None where the row has none.
        start_seconds, duration_seconds: the part of the file; None: to its end.
        split: ``train``, ``validation``, ``test``, or None.
    """

    name: str
    path: Path
    label: str | None = None
    start_seconds: float = 0.0
    duration_seconds: float | None = None
    split: str | None = None


def split_of(written: str) -> str | None:
    """``train``, ``validation`` or ``test`` for one of their usual names in any case; None for any other."""
    return SPLITS.get(written.strip().lower())


def is_manifest(path: Path) -> bool:
    """Whether a path is a file that is named like a list."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def read_manifest(file: Path, refuse: Refuse) -> Iterator[ManifestRow]:
    """The usable rows of a .csv, .tsv or .jsonl file in order; the others go to ``refuse`` with file and line.

    A list that came in an archive or with a named set can name only files in its own folder.

    Raises:
        DataError: where the file cannot be read or has no column ``path``.
    """
    inside = own_folder(file)
    seen: dict[str, int] = {}
    try:
        for number, entries in _json_rows(file, refuse) if file.suffix.lower() == ".jsonl" else _table_rows(file):
            try:
                row = _row(file, entries, inside)
                if row.name in seen:
                    raise ValueError(f"lists {row.name} as line {seen[row.name]} does")
            except (OSError, ValueError) as error:  # the system refuses some names, such as very long ones
                refuse(f"{file.name} line {number}", str(error)[:LONGEST_REASON])
                continue
            seen[row.name] = number
            yield row
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{file} cannot be read as a list of files ({error}); expected UTF-8 text with a column path"
        ) from error


def _table_rows(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    mark = "\t" if file.suffix.lower() == ".tsv" else ","
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(_short_lines(stream), delimiter=mark, skipinitialspace=True)
        columns = [str(name).strip().lower() for name in reader.fieldnames or ()]
        if "path" not in columns:
            found = ", ".join(columns)[:200] or "nothing"
            raise DataError(f"{file} line 1 has the columns {found}; expected a header with path, and any of {_optional()}")
        reader.fieldnames = columns
        for entries in reader:
            yield reader.line_num, entries


def _short_lines(stream: IO[str]) -> Iterator[str]:
    """Yield lines. A line that is too long is refused before it is read to its end, as it may not fit in memory."""
    while line := stream.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise ValueError(f"a line of more than {LONGEST_LINE} characters")
        yield line


def _json_rows(file: Path, refuse: Refuse) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with file.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(_short_lines(stream), start=1):
            if not line.strip():
                continue
            try:
                entries = json.loads(line)
                if not isinstance(entries, dict):
                    raise ValueError(f"it holds {type(entries).__name__}")
            except RecursionError:
                refuse(f"{file.name} line {number}", f"is nested too deeply; expected path, and any of {_optional()}")
                continue
            except ValueError as error:
                refuse(f"{file.name} line {number}", f"is no JSON object ({error}); expected path, and any of {_optional()}")
                continue
            yield number, entries


def _optional() -> str:
    return ", ".join(COLUMNS[1:])


def _row(file: Path, entries: Mapping[str, Any], inside: Path | None) -> ManifestRow:
    written = _text(entries, "path")
    if written is None:
        raise ValueError("has no path")
    path = _place(file.parent, written)
    if inside is not None and not path.resolve().is_relative_to(inside):
        raise ValueError(f"names {written[:200]}, which is outside of the archive that holds the list")
    if not path.is_file():
        raise ValueError(f"names {written[:200]}, which is {'a folder' if path.is_dir() else 'not there'}")
    start, duration = _seconds(entries, "start"), _seconds(entries, "duration")
    if duration == 0:
        raise ValueError("has duration 0, expected a length in seconds")
    split = _text(entries, "split")
    chosen = None if split is None else split_of(split)
    if split is not None and chosen is None:
        raise ValueError(f"has split {split!r}, expected train, validation or test")
    part = "" if start is None and duration is None else f"@{start or 0:g}+{'' if duration is None else f'{duration:g}'}"
    return ManifestRow(written + part, path, _text(entries, "label"), start or 0.0, duration, chosen)


def _place(folder: Path, written: str) -> Path:
    """Return the file that a row names. Lists made on Windows may have backslashes between folders."""
    path, other = folder / user_path(written), folder / user_path(written.replace("\\", "/"))
    return other if not path.is_file() and other.is_file() else path


def _text(entries: Mapping[str, Any], name: str) -> str | None:
    value = entries.get(name)
    if isinstance(value, dict | list):
        raise ValueError(f"has {type(value).__name__} in {name}, expected text")
    return None if value is None else str(value).strip() or None


def _seconds(entries: Mapping[str, Any], name: str) -> float | None:
    written = _text(entries, name)
    try:
        value = None if written is None else float(written)
    except ValueError:
        value = math.nan
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise ValueError(f"has {name} {written!r}, expected seconds, 0 or more")
    return value

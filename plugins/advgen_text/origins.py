"""Where lines come from: text files, or the tables of a Hugging Face data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from advgen import (
    DataError,
    DataRequest,
    class_name,
    columns_of,
    file_sha256,
    is_table_set,
    kind_of,
    open_tables,
    split_of,
    whole_block,
)

from .config import TextConfig
from .reading import (
    CHARACTERS_PER_TOKEN,
    LINE_BYTES,
    SUFFIXES,
    Line,
    Notes,
    find_files,
    mark,
    read_lines,
    single_spaced,
    without_shared,
)

BLOCK_ROWS = 1000
HELD_OUT = ("validation", "test")


class Origin(Protocol):
    """Lines that can be read again and again.

    Args:
        name: for messages.
        num_bytes: about how much text.
        parts: names of files or splits, and their bytes.
    """

    @property
    def name(self) -> str: ...

    @property
    def num_bytes(self) -> int: ...

    @property
    def parts(self) -> dict[str, int]: ...

    def lines(self, config: TextConfig, request: DataRequest, notes: Notes) -> Iterator[Line]:
        """Every usable line; the others go to ``notes``."""
        ...

    def content(self) -> list[tuple[str, str]]:
        """Names, and hashes of what they hold."""
        ...


def find_origin(config: TextConfig, request: DataRequest) -> Origin:
    """What a request with a path or an address names.

    Raises:
        DataError: where there is no text.
    """
    place = request.path if request.path is not None else request.address
    if isinstance(place, str) or (place.exists() and is_table_set(place, _has_text_files(place))):
        tables = open_tables(place, config.subset)
        for table in tables.values():
            _check_columns(table, str(place), config)
        return TableSet(str(place), tables)
    return TextFiles(place, tuple(find_files(place)))


def _has_text_files(place: Path) -> bool:
    return place.is_dir() and any(file.suffix.lower() in SUFFIXES for file in place.iterdir())


@dataclass(frozen=True)
class TextFiles:
    """``.txt`` and ``.jsonl`` files."""

    place: Path
    files: Sequence[Path]

    @property
    def name(self) -> str:
        """The path that was given."""
        return str(self.place)

    @property
    def num_bytes(self) -> int:
        """Of all files."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, int]:
        """Files."""
        return {file.name: file.stat().st_size for file in self.files}

    def lines(self, config: TextConfig, request: DataRequest, notes: Notes) -> Iterator[Line]:
        """As ``read_lines``."""
        return read_lines(self.files, config, request, notes)

    def content(self) -> list[tuple[str, str]]:
        """Of every file its sha256."""
        return [(file.name, file_hash(file)) for file in self.files]


def file_hash(file: Path) -> str:
    """sha256 of a file's bytes.

    Raises:
        DataError: where it cannot be read.
    """
    try:
        return file_sha256(file)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class TableSet:
    """Tables by split, as the package ``datasets`` maps them."""

    name: str
    tables: dict[str, Any]

    @property
    def num_bytes(self) -> int:
        """Of all tables, other columns too."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, int]:
        """Splits."""
        return {split: int(table.data.nbytes) for split, table in self.tables.items()}

    def lines(self, config: TextConfig, request: DataRequest, notes: Notes) -> Iterator[Line]:
        """Training rows first; those that a held-out split has too are left out."""
        own = frozenset(split for split in HELD_OUT if split in self._by_split)
        held_out = [line for split in sorted(own) for line in self._rows(split, config, request, Notes())]
        marks = frozenset(mark(line.whole) for line in held_out)
        train = self._rows("train", config, request, notes)
        yield from (line._replace(own_splits=own) for line in without_shared(train, marks, notes))
        for split in sorted(own):
            rows = self._rows(split, config, request, notes)
            yield from (line._replace(own_splits=own, split=split) for line in rows)

    def content(self) -> list[tuple[str, str]]:
        """Of every table the package's own hash of what it holds and what was done to it."""
        return [(split, str(table._fingerprint)) for split, table in self.tables.items()]

    @property
    def _by_split(self) -> dict[str, tuple[str, Any]]:
        return {str(split_of(name)): (name, table) for name, table in self.tables.items()}

    def _rows(self, split: str, config: TextConfig, request: DataRequest, notes: Notes) -> Iterator[Line]:
        name, table = self._by_split[split]
        columns = [each for each in (config.field, config.label_field, config.prompt_field) if each is not None]
        labels = table.features[config.label_field] if config.label_field is not None else None
        most = config.max_length * CHARACTERS_PER_TOKEN if config.long_lines == "cut" else LINE_BYTES
        for first, rows in enumerate(table.select_columns(columns).with_format("arrow").iter(BLOCK_ROWS)):
            block = whole_block(rows, self.name).to_pydict()
            for index, text in enumerate(block[config.field]):
                number = first * BLOCK_ROWS + index
                where = f"{self.name} {name}/{number}"
                label = class_name(block[config.label_field][index], labels) if config.label_field is not None else None
                prompt = block[config.prompt_field][index] if config.prompt_field is not None else None
                if text is None or (prompt is None and config.prompt_field is not None):
                    notes.refuse(f"{where} has no {config.field if text is None else config.prompt_field}", request.max_bad)
                elif label is None and config.label_field is not None:
                    notes.refuse(f"{where} has no {config.label_field}", request.max_bad)
                elif line := " ".join(text[:most].split()):
                    start = None if prompt is None else " ".join(prompt[-most:].split())
                    uncut = single_spaced(prompt, text) if notes.uncut else ""
                    yield Line(line, label, prompt=start, place=f"{name} row", number=number, uncut=uncut)
                else:
                    notes.num_empty += 1


def _check_columns(table: Any, place: str, config: TextConfig) -> None:
    """Refuse a table without the columns that the options name.

    Raises:
        DataError: with the columns that there are.
    """
    kinds = dict(table.features)
    for option in ("field", "label_field", "prompt_field"):
        name = getattr(config, option)
        if name is not None and name not in kinds:
            raise DataError(f"{place} has no column {name!r}; it has {columns_of(table)}: set options.{option}")
        if name is not None and option != "label_field" and kind_of(kinds[name]) not in ("string", "large_string"):
            raise DataError(f"{place}: column {name} holds {kind_of(kinds[name])}, expected text: set options.{option}")

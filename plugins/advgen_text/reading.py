"""Lines of text files and JSON lines, read once through without holding them, and what was left out and why."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from advgen import DataError, DataRequest, counted, listed, sorted_paths

from .config import SampleReading, TextConfig

SUFFIXES = (".txt", ".jsonl")
CHARACTERS_PER_TOKEN = 64
# A line is not read beyond this, so that a file without line breaks does not fill the memory.
LINE_BYTES = 2**22
BLOCK_BYTES = 2**20
MOST_NAMED = 1000
NUM_NAMED = 3


class Line(NamedTuple):
    """One sample.

    Args:
        text: without line breaks, spaces single.
        label: None without.
        own_splits: the held-out splits that the data set brings itself.
        split: the one of them that this is of.
        prompt: how the sample starts, spaces single; None without.
        place: what the number counts in, such as ``captions.txt line``.
        number: of the line from 1, or of a table's row from 0.
        uncut: prompt and text as long as they are, where ``Notes.uncut`` asks for them.
    """

    text: str
    label: str | None = None
    own_splits: frozenset[str] = frozenset()
    split: str | None = None
    prompt: str | None = None
    place: str = ""
    number: int = 0
    uncut: str = ""

    @property
    def whole(self) -> str:
        """Prompt and text."""
        return self.text if not self.prompt else f"{self.prompt} {self.text}"


class RawLine(NamedTuple):
    """A line's number from 1, its bytes, and whether it goes on behind them."""

    number: int
    raw: bytes
    is_cut: bool


@dataclass
class Notes:
    """What one reading left out.

    Args:
        uncut: whether lines are wanted as long as they are, too; then they may be large.
    """

    uncut: bool = False
    bad: list[str] = field(default_factory=list)
    num_refused: int = 0
    num_not_utf8: int = 0
    num_empty: int = 0
    num_shared: int = 0

    def refuse(self, reason: str, most: int) -> None:
        """Note a bad line.

        Raises:
            DataError: where there are more than ``most``.
        """
        self.num_refused += 1
        if len(self.bad) < MOST_NAMED:
            self.bad.append(reason)
        if self.num_refused > most:
            some = "a bad line" if most == 0 else f"more than {counted(most, 'bad line')}"  # the others are not read
            raise DataError(f"{some}, data.max_bad allows {most}; the first: {'; '.join(self.bad[:NUM_NAMED])}")

    @property
    def left_out(self) -> str:
        """The first bad lines, to end a refusal with; empty where there are none."""
        return f"; left out: {listed(self.bad, self.num_refused, '; ')}" if self.bad else ""

    def sentences(self, place: str) -> tuple[str, ...]:
        """All notes, for the run's record."""
        shared = f"{place}: {counted(self.num_shared, 'training line')} that held-out ones equal"
        empty = counted(self.num_empty, "empty line")
        return (*self.bad, *([shared] if self.num_shared else []), *([empty] if self.num_empty else []))


def small_text(file: Path, most_bytes: int, encoding: str = "utf-8") -> str:
    """Read a whole file, of limited size.

    Raises:
        OSError: if the system refuses.
        ValueError: if it is too large, or not in this encoding.
    """
    with file.open("rb") as stream:
        content = stream.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"it has more than {most_bytes} bytes")
    return content.decode(encoding)


def find_files(path: Path) -> list[Path]:
    """The file, or a folder's files in order of name.

    Raises:
        DataError: where there is none that this plugin reads.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; give a .txt or .jsonl file, or a folder of them")
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise DataError(f"{path} ends in {path.suffix!r}; the text plugin reads {' and '.join(SUFFIXES)}")
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} is neither a file nor a folder; give a .txt or .jsonl file, or a folder of them")
    files = sorted_paths(file for file in path.iterdir() if file.is_file() and file.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"folder {path} holds no {' or '.join(SUFFIXES)} file; put a sample on each line of one")
    return files


def test_file(files: Sequence[Path]) -> Path | None:
    """The test.txt of a folder that has a train.txt too: a split of its own."""
    named = {file.name: file for file in files}
    return named["test.txt"] if {"train.txt", "test.txt"} <= named.keys() else None


def read_lines(files: Sequence[Path], config: TextConfig, request: DataRequest, notes: Notes) -> Iterator[Line]:
    """Every usable line, a folder's own test lines last; other lines that equal one of those are left out.

    Raises:
        DataError: naming file, line and byte, where more lines are bad than ``request.max_bad``.
    """
    own = None if isinstance(config, SampleReading) else test_file(files)
    first = Notes()
    marks = frozenset() if own is None else frozenset(mark(line.whole) for line in _read_file(own, config, request, first))
    brought = frozenset() if own is None else frozenset(["test"])
    for file in files:
        for line in () if file == own else without_shared(_read_file(file, config, request, notes), marks, notes):
            yield line._replace(own_splits=brought)
    if own is not None:
        if not marks:
            raise DataError(f"{own} holds no text; fill it, or remove it for a split by hash{first.left_out}")
        yield from (line._replace(own_splits=brought, split="test") for line in _read_file(own, config, request, notes))


def without_shared(lines: Iterator[Line], marks: frozenset[bytes], notes: Notes) -> Iterator[Line]:
    """Lines that are not among the held-out ones of these marks; the others are counted."""
    for line in lines:
        if marks and mark(line.whole) in marks:
            notes.num_shared += 1
        else:
            yield line


def mark(text: str) -> bytes:
    """Eight bytes that tell a text from others."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _read_file(file: Path, config: TextConfig, request: DataRequest, notes: Notes) -> Iterator[Line]:
    is_json, place = file.suffix.lower() == ".jsonl", f"{file.name} line"
    most = config.max_length * CHARACTERS_PER_TOKEN if config.long_lines == "cut" else LINE_BYTES
    for option in ("label_field", "prompt_field"):
        if getattr(config, option) is not None and not is_json:
            what = option.removesuffix("_field") + "s"
            raise DataError(f"{file} cannot hold the field {option}={getattr(config, option)!r}; {what} need .jsonl files")
    for raw in _raw_lines(file):
        try:
            line = _decode(raw).strip()
            found = _record(line, raw.is_cut, config) if is_json and line else Line(line)
        except ValueError as error:
            notes.num_not_utf8 += isinstance(error, UnicodeDecodeError)
            notes.refuse(_reason(file, raw, error), request.max_bad)
            continue
        text = " ".join(found.text[:most].split())
        if text:
            prompt = None if found.prompt is None else " ".join(found.prompt[-most:].split())
            uncut = single_spaced(found.prompt, found.text) if notes.uncut else ""
            yield found._replace(text=text, prompt=prompt, place=place, number=raw.number, uncut=uncut)
        else:
            notes.num_empty += 1


def single_spaced(prompt: str | None, text: str) -> str:
    """Prompt and text as one line."""
    return " ".join(f"{prompt or ''} {text}".split())


def _raw_lines(file: Path) -> Iterator[RawLine]:
    number = 0
    try:
        with file.open("rb") as stream:
            if stream.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
                stream.seek(0)
            while raw := stream.readline(LINE_BYTES):
                number, length, end = number + 1, len(raw), raw
                while not end.endswith(b"\n") and (end := stream.readline(BLOCK_BYTES)):
                    length += len(end)
                yield RawLine(number, raw, length > len(raw))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error


def _decode(line: RawLine) -> str:
    """Text of a line; a character that the cut went through is dropped."""
    try:
        return line.raw.decode()
    except UnicodeDecodeError as error:
        if line.is_cut and error.start > len(line.raw) - 4:
            return line.raw[: error.start].decode()
        raise


def _record(line: str, is_cut: bool, config: TextConfig) -> Line:
    if is_cut:
        raise ValueError(f"is longer than {LINE_BYTES} bytes; expected one JSON object a line")
    try:
        record: Any = json.loads(line)
    except RecursionError as error:
        raise ValueError("is nested too deeply; expected one flat JSON object a line") from error
    if not isinstance(record, dict):
        raise ValueError(f"holds {type(record).__name__}, expected an object with the field {config.field!r}")
    names = config.field, config.label_field, config.prompt_field
    for wanted in filter(None, names):
        if wanted not in record:
            raise ValueError(f"has no field {wanted!r}; it has {', '.join(map(repr, record)) or 'none'}")
    for written in filter(None, (config.field, config.prompt_field)):
        if not isinstance(record[written], str):
            raise ValueError(f"has {type(record[written]).__name__} in field {written!r}, expected text")
    text, label, prompt = (None if name is None else str(record[name]) for name in names)
    for name, value in zip(names, (text, label, prompt), strict=True):
        if value is not None and not is_whole(value):
            raise ValueError(f"has half of a character in field {name!r}; write surrogates in pairs, or UTF-8")
    return Line(text or "", label, prompt=prompt)


def is_whole(text: str) -> bool:
    """Whether a text has no lone surrogate: half of a character, as JSON and command lines can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _reason(file: Path, line: RawLine, error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"{file} line {line.number} is not UTF-8 at byte {error.start + 1} of the line; convert the file to UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"{file} line {line.number} is not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
    return f"{file} line {line.number} {error}"


def decode_lines(file: Path) -> list[str]:
    """The lines of a text file, or the field ``text`` of a .jsonl file's objects, without empty ones.

    Raises:
        DataError: naming file, line and byte.
    """
    found, config = list[str](), TextConfig()
    for raw in _raw_lines(file):
        try:
            line = _decode(raw).strip()
            text = _record(line, raw.is_cut, config).text if file.suffix.lower() == ".jsonl" and line else line
        except ValueError as error:
            raise DataError(_reason(file, raw, error)) from error
        if text:
            found.append(text)
    if not found:
        raise DataError(f"{file} holds no text")
    return found

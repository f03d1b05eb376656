"""Reading text: lines of UTF-8 files or JSON lines, or the embedded corpus, into tokens by split."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from advgen import ArraySource, Corpus, DataError, DataRequest, content_hash, split_indices

from . import phrases
from .config import TextConfig
from .tokenizer import PAD, Tokenizer, join_words

SUFFIXES = (".txt", ".jsonl")
CHARACTERS_PER_TOKEN = 64
DIGEST_BYTES = 6
MOST_DIGESTS = 20_000


@dataclass
class Lines:
    """Text as read: lines, their labels (empty without), and what was left out and why."""

    texts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    num_empty: int = 0
    num_refused: int = 0


def read_corpus(config: TextConfig, request: DataRequest) -> Corpus:
    """The corpus of a request: tokens (N, L) by split, with facts enough to sample without data.

    Raises:
        DataError: naming the file, line and byte where something does not fit.
    """
    path = request.path
    lines, fixed_test = (_embedded(config, request), None) if path is None else _from_disk(path, config, request)
    splits = _split(lines, fixed_test, request)
    tokenizer = Tokenizer.learn(
        (lines.texts[i] for i in splits["train"]),
        kind=config.tokenizer,
        vocabulary_size=config.vocabulary_size,
        lower_case=config.lower_case,
    )
    tokens = tokenizer.encode(lines.texts, config.max_length)
    length = max(2, int((tokens != PAD).sum(1).max()))
    tokens = tokens[:, :length].contiguous()
    classes = sorted(set(lines.labels))
    labels = torch.tensor([classes.index(label) for label in lines.labels], dtype=torch.int64) if classes else None
    sources = {name: _source(tokens, labels, rows) for name, rows in splits.items()}
    facts = {
        "tokenizer": tokenizer.to_json(),
        "length": length,
        "grammar": path is None,
        "classes": classes,
        "class_counts": _counts(labels, splits["train"], len(classes)),
        "train_digests": digests(tokenizer.decode(sources["train"].values)),
    }
    return Corpus(facts, sources, content_hash(text.encode() for text in (*lines.texts, *lines.labels)), _notes(lines))


def digests(lines: Sequence[str]) -> str:
    """Short hashes of lines, by which novelty is told without the data; empty for a large corpus."""
    if len(lines) > MOST_DIGESTS:
        return ""
    return base64.b64encode(b"".join(sorted({digest(line) for line in lines}))).decode()


def digest(line: str) -> bytes:
    """A short hash of one line."""
    return hashlib.blake2b(line.encode(), digest_size=DIGEST_BYTES).digest()


def known_digests(text: str) -> frozenset[bytes]:
    """The set that ``digests`` wrote."""
    packed = base64.b64decode(text)
    return frozenset(packed[start : start + DIGEST_BYTES] for start in range(0, len(packed), DIGEST_BYTES))


def _embedded(config: TextConfig, request: DataRequest) -> Lines:
    sentences = phrases.sample(config.phrases, torch.Generator().manual_seed(request.seed))
    labels = [sentence.kind for sentence in sentences] if config.phrase_labels else []
    return Lines([join_words(sentence.words) for sentence in sentences], labels)


def _from_disk(path: Path, config: TextConfig, request: DataRequest) -> tuple[Lines, int | None]:
    """Lines, and where the folder's own test split begins (None: it has none)."""
    files, lines, fixed_test = _files(path), Lines(), None
    has_test = path.is_dir() and {"train.txt", "test.txt"} <= {file.name for file in files}
    for file in sorted(files, key=lambda file: has_test and file.name == "test.txt"):
        if has_test and file.name == "test.txt":
            fixed_test = len(lines.texts)
        _read_file(file, config, request, lines)
    if not lines.texts:
        raise DataError(f"{path} holds no text: {lines.num_empty} empty lines; expected a sample a line")
    return lines, fixed_test


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise DataError(f"{path} does not exist; give a .txt or .jsonl file, or a folder of them")
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise DataError(f"{path} ends in {path.suffix!r}; the text plugin reads {' and '.join(SUFFIXES)}")
        return [path]
    files = sorted(file for file in path.iterdir() if file.is_file() and file.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"folder {path} holds no {' or '.join(SUFFIXES)} file; put a sample on each line of one")
    return files


def _read_file(file: Path, config: TextConfig, request: DataRequest, lines: Lines) -> None:
    if config.label_field is not None and file.suffix.lower() != ".jsonl":
        raise DataError(f"{file} cannot hold the field label_field={config.label_field!r}; labels need .jsonl files")
    is_json, most = file.suffix.lower() == ".jsonl", config.max_length * CHARACTERS_PER_TOKEN
    for number, start, raw in _raw_lines(file):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            text, label = _record(line, config) if is_json and line else (line, None)
        except (UnicodeDecodeError, ValueError) as error:
            _refuse(_reason(file, number, start, error), request, lines)
            continue
        if not text.strip():
            lines.num_empty += 1
            continue
        lines.texts.append(" ".join(text[:most].split()))
        if label is not None:
            lines.labels.append(label)


def _raw_lines(file: Path) -> Iterator[tuple[int, int, bytes]]:
    """Line number from 1, byte offset of its start, and its bytes."""
    start = 0
    try:
        with file.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                yield number, start, raw
                start += len(raw)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error


def _record(line: str, config: TextConfig) -> tuple[str, str | None]:
    record: Any = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError(f"holds {type(record).__name__}, expected an object with the field {config.field!r}")
    wanted = [config.field] if config.label_field is None else [config.field, config.label_field]
    for name in wanted:
        if name not in record:
            raise ValueError(f"has no field {name!r}; it has {', '.join(map(repr, record)) or 'none'}")
    if not isinstance(record[config.field], str):
        raise ValueError(f"has {type(record[config.field]).__name__} in field {config.field!r}, expected text")
    return record[config.field], None if config.label_field is None else str(record[config.label_field])


def _reason(file: Path, number: int, start: int, error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"{file} line {number} is not UTF-8 at byte {start + error.start}; convert the file to UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"{file} line {number} is not JSON: {error.msg} at column {error.colno}"
    return f"{file} line {number} {error}"


def _refuse(reason: str, request: DataRequest, lines: Lines) -> None:
    lines.num_refused += 1
    lines.bad.append(reason)
    if lines.num_refused > request.max_bad:
        raise DataError(f"{reason} ({lines.num_refused} bad lines, data.max_bad allows {request.max_bad})")


def _split(lines: Lines, fixed_test: int | None, request: DataRequest) -> dict[str, list[int]]:
    """Rows by split. Equal lines share a split, so none is both learned from and tested on."""
    if fixed_test is None:
        return {name: rows.tolist() for name, rows in split_indices(lines.texts, request).items()}
    test = range(fixed_test, len(lines.texts))
    if not test:
        raise DataError(f"{request.path}/test.txt holds no text; fill it, or remove it for a split by hash")
    held_out = {lines.texts[row] for row in test}
    rows = [row for row in range(fixed_test) if lines.texts[row] not in held_out]
    if len(rows) < fixed_test:
        lines.bad.append(f"{request.path}/train.txt: {fixed_test - len(rows)} lines left out, they are in test.txt too")
    parts = split_indices([lines.texts[row] for row in rows], request)
    train = sorted(parts["train"].tolist() + parts["test"].tolist())
    return {
        "train": [rows[i] for i in train],
        "validation": [rows[i] for i in parts["validation"].tolist()],
        "test": list(test),
    }


def _source(tokens: torch.Tensor, labels: torch.Tensor | None, rows: list[int]) -> ArraySource:
    index = torch.tensor(rows, dtype=torch.int64)
    values = tokens[index]
    return ArraySource(values, values != PAD, {} if labels is None else {"label": labels[index]})


def _counts(labels: torch.Tensor | None, rows: list[int], num_classes: int) -> list[int]:
    if labels is None:
        return []
    found = Counter(labels[torch.tensor(rows)].tolist())
    return [found[number] for number in range(num_classes)]


def _notes(lines: Lines) -> tuple[str, ...]:
    empty = [f"{lines.num_empty} empty lines skipped"] if lines.num_empty else []
    return (*lines.bad, *empty)

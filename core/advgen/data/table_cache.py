"""Parquet and arrow files as arrow streams in the cache, copied batch by batch under limits.

A footer may promise anything, and a page of one value may be named a million times. So sizes are counted as they come.
"""

from __future__ import annotations

import hashlib
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from advgen.cache import cache_folder
from advgen.errors import DataError
from advgen.files import replace_file
from advgen.limits import ANY, WAY_OUT, free_bytes, most_unpacked, size_text

BATCH_BYTES = 64 * 2**20
MOST_BATCH_ROWS = 1000
LARGEST_PAGE = 256 * 2**20
LARGEST_GROUP = 8 * 2**30
LARGEST_FOOTER = 256 * 2**20
HASHED_BYTES = 512 * 2**20
MOST_HEADER_FIELDS = 3
RECORD_BATCH, DICTIONARY_BATCH = 3, 2
NEXT_MESSAGE = 0xFFFFFFFF
STREAM_START = 8
"""The first byte after the mark of an arrow file, where the stream begins."""
ARROW_MAGIC, PARQUET_MAGIC = b"ARROW1", b"PAR1"


def as_stream(file: Path) -> tuple[Path, str]:
    """Return an arrow stream with a file's tables, made if it is not in the cache yet, and a hash of its content.

    Raises:
        DataError: if it is damaged, or unpacks to too much for its size or for the disk.
        OSError: if the system refuses.
    """
    mark = _content(file)
    if file.suffix.lower() == ".arrow" and _is_stream(file):
        check_stream(file)
        return file, mark
    target = cache_folder() / "hub" / f"{mark[:32]}.arrow"
    if target.is_file():
        return target, mark
    size = file.stat().st_size
    most, room = most_unpacked(size, largest=ANY), free_bytes(target.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".converting-", ignore_cleanup_errors=True) as scratch:
        draft = Path(scratch) / "table.arrow"
        _convert(file, draft, min(most, room))
        replace_file(draft, target)
    return target, mark


def _is_stream(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(ARROW_MAGIC)) != ARROW_MAGIC


def _content(file: Path) -> str:
    """Hash the content, or of a large file name, size and time."""
    state = file.stat()
    if state.st_size > HASHED_BYTES:
        return hashlib.sha256(f"{file.name} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _convert(file: Path, draft: Path, most: int) -> None:
    """Copy all batches, and refuse when they are too many bytes."""
    import pyarrow

    num_bytes = 0
    with draft.open("wb") as out:
        writer = None
        for batch in _parquet_batches(file) if file.suffix.lower() == ".parquet" else _arrow_batches(file):
            batch.validate(full=True)
            num_bytes += batch.nbytes
            if num_bytes > most:
                raise DataError(
                    f"{file} unpacks to more than {size_text(most)}, too much for a file of {size_text(file.stat().st_size)} "
                    f"or for the disk; make room, or {WAY_OUT}"
                )
            if writer is None:
                writer = pyarrow.ipc.new_stream(out, batch.schema)
            writer.write_batch(batch)
        if writer is None:
            raise DataError(f"{file} holds no rows; give a file with data")
        writer.close()


# Parquet


def _parquet_batches(file: Path) -> Iterator[Any]:
    import pyarrow.parquet

    _check_footer(file)
    with pyarrow.parquet.ParquetFile(file, memory_map=True) as whole:
        about = whole.metadata
        for group in range(about.num_row_groups):
            rows = _rows_at_once(file, about.row_group(group))
            for batch in whole.iter_batches(batch_size=rows, row_groups=[group]):
                yield _decoded(batch)


def _decoded(batch: Any) -> Any:
    """Write out columns whose values stand in a list of their own, such as categories of pandas."""
    import pyarrow

    columns = [each.dictionary_decode() if pyarrow.types.is_dictionary(each.type) else each for each in batch.columns]
    fields = [field.with_type(each.type) for field, each in zip(batch.schema, columns, strict=True)]
    return pyarrow.RecordBatch.from_arrays(columns, schema=pyarrow.schema(fields, batch.schema.metadata))


def _check_footer(file: Path) -> None:
    """Refuse a footer that is longer than the file or than memory should hold."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        stream.seek(max(0, size - 8))
        tail = stream.read(8)
    length = struct.unpack("<I", tail[:4])[0] if len(tail) == 8 else 0
    if tail[4:] != PARQUET_MAGIC or length > size - 8 or length > LARGEST_FOOTER:
        raise DataError(f"{file} is no whole parquet file: its footer should have {length} bytes, the file has {size}")


def _rows_at_once(file: Path, group: Any) -> int:
    """Return how many rows of a row group to read at once, by the largest value that they can name again and again."""
    size = group.total_byte_size
    if not 0 <= size <= LARGEST_GROUP:
        raise DataError(f"{file}: a row group of {size} bytes, expected at most {LARGEST_GROUP}; write it in smaller ones")
    largest = 1
    with file.open("rb") as stream:
        for number in range(group.num_columns):
            column = group.column(number)
            offsets = (column.dictionary_page_offset, column.data_page_offset)
            stream.seek(min(offset for offset in offsets if offset is not None and offset > 0))
            largest = max(largest, _page_bytes(stream.read(64)))
    if largest > LARGEST_PAGE:
        raise DataError(f"{file}: a page of {largest} bytes, expected at most {LARGEST_PAGE}; write it with smaller pages")
    return max(1, min(MOST_BATCH_ROWS, BATCH_BYTES // largest))


def _page_bytes(header: bytes) -> int:
    """Return a page's size once it is unpacked, by its header: the second of its fields in Thrift's compact protocol.

    Source: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
    """
    at = field = 0
    for _ in range(MOST_HEADER_FIELDS):
        field += header[at] >> 4
        value, shift, at = 0, 0, at + 1
        while True:
            value |= (header[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if header[at - 1] < 0x80:
                break
        if field == 2:
            return (value >> 1) ^ -(value & 1)
    raise ValueError("a page without a size")


# Arrow


def _arrow_batches(file: Path) -> Iterator[Any]:
    """Yield the batches of an arrow file, which is a stream between two marks: its footer is not followed anywhere."""
    import pyarrow

    check_stream(file, STREAM_START)
    with pyarrow.memory_map(str(file)) as source:
        source.seek(STREAM_START)
        yield from pyarrow.ipc.open_stream(source)


def check_stream(file: Path, start: int = 0) -> None:
    """Refuse an arrow stream with compressed buffers, which are unpacked all at once when it is mapped.

    Args:
        start: its first byte in the file.

    Raises:
        DataError: naming the file.
        ValueError: if it is damaged.
    """
    with file.open("rb") as stream:
        stream.seek(start)
        for message in _messages(stream, file.stat().st_size):
            if _is_compressed(message):
                raise DataError(f"{file} is a compressed arrow file; write it without compression, or as parquet")


def _messages(stream: IO[bytes], size: int) -> Iterator[bytes]:
    """Yield each message's metadata.

    Source: https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format
    """
    while len(start := stream.read(4)) == 4:
        (length,) = struct.unpack("<I", start)
        if length == NEXT_MESSAGE:
            (length,) = struct.unpack("<I", stream.read(4))
        if not length:
            return
        if length > size:
            raise ValueError(f"a message of {length} bytes in a file of {size}")
        message = stream.read(length)
        yield message
        body = _value(message, _number(message, 0, "<I"), 3, "<q")
        if not 0 <= body <= size:
            raise ValueError(f"a message with a body of {body} bytes in a file of {size}")
        stream.seek(body, 1)


def _is_compressed(message: bytes) -> bool:
    """Whether a message is of a batch with a compression: the fourth field of its header, in the notation of FlatBuffers."""
    root = _number(message, 0, "<I")
    kind, header = _value(message, root, 1, "<B"), _field(message, root, 2)
    if kind not in (RECORD_BATCH, DICTIONARY_BATCH) or not header:
        return False
    table = header + _number(message, header, "<I")
    if kind == DICTIONARY_BATCH:
        inner = _field(message, table, 1)
        table = inner + _number(message, inner, "<I")
    return bool(_field(message, table, 3))


def _field(message: bytes, table: int, number: int) -> int:
    """Return where a field of a table lies; 0 if it is not there."""
    names = table - _number(message, table, "<i")
    at = 4 + 2 * number
    if at >= _number(message, names, "<H"):
        return 0
    offset = _number(message, names + at, "<H")
    return table + offset if offset else 0


def _value(message: bytes, table: int, number: int, kind: str) -> int:
    """Return a number of a table; 0 if it is left out, as its default is."""
    at = _field(message, table, number)
    return _number(message, at, kind) if at else 0


def _number(message: bytes, at: int, kind: str) -> int:
    try:
        if at < 0:
            raise struct.error
        return int(struct.unpack_from(kind, message, at)[0])
    except struct.error as error:
        raise ValueError("a message that points outside of itself") from error

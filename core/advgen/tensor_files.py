"""Safetensors files, read with checks: types and sizes from the header first, then only the tensors that are wanted.

Layout: 8 bytes with the header's length, the header as JSON, then the tensors' bytes without gaps.
Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advgen.reading import parse_json, told

PREFIX_BYTES = 8
MOST_HEADER_BYTES = 16 * 2**20
MOST_DIMENSIONS = 64
METADATA = "__metadata__"
DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Size:
    """Type and shape of a tensor, without its values."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} {self.shape}"


Sizes = Mapping[str, Size]


def sizes_of(tensors: Mapping[str, Tensor]) -> dict[str, Size]:
    """Return types and shapes of tensors."""
    return {name: Size(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


class Stored(dict[str, Tensor]):
    """Tensors by name, with the file that they were read from."""

    def __init__(self, tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] = (), path: Path | None = None) -> None:
        super().__init__(tensors)
        self.path = path


class TensorFile:
    """An open file. Nothing but the header is read before ``read`` is called."""

    def __init__(self, path: Path, handle: BufferedReader) -> None:
        """Read the header of an open file.

        Raises:
            ValueError: with a reason in words, if this is no whole safetensors file.
        """
        self.path, self._handle = path, handle
        self.num_bytes = os.fstat(handle.fileno()).st_size
        length = int.from_bytes(handle.read(PREFIX_BYTES), "little")
        if self.num_bytes < PREFIX_BYTES or length > self.num_bytes - PREFIX_BYTES:
            raise ValueError(f"its header should have {length:,} bytes, and the file has {self.num_bytes:,}")
        if length > MOST_HEADER_BYTES:
            raise ValueError(f"its header has {length:,} bytes, expected at most {MOST_HEADER_BYTES:,}")
        self._start = PREFIX_BYTES + length
        header = parse_json(handle.read(length).decode(encoding="utf-8"))
        if not isinstance(header, dict):
            raise ValueError(f"its header is a {type(header).__name__}, expected a table")
        self.metadata = _metadata(header.pop(METADATA, {}))
        self._places = _places(header, self.num_bytes - self._start)
        self.sizes: dict[str, Size] = {name: size for name, (size, _) in self._places.items()}

    def sha256(self) -> str:
        """Return the hash of the whole file, which is never in memory as a whole."""
        self._handle.seek(0)
        return hashlib.file_digest(self._handle, "sha256").hexdigest()

    def read(self, names: Collection[str] | None = None) -> Stored:
        """Read tensors into memory of their own: those named, or all.

        Raises:
            ValueError: if a tensor of bools holds another byte than 0 and 1, or the file became shorter.
        """
        chosen = self._places if names is None else {name: self._places[name] for name in names}
        return Stored({name: self._read(name, *place) for name, place in chosen.items()}, self.path)

    def _read(self, name: str, size: Size, begin: int) -> Tensor:
        if not size.num_bytes:
            return torch.empty(size.shape, dtype=size.dtype)
        self._handle.seek(self._start + begin)
        content = bytearray(size.num_bytes)
        if self._handle.readinto(content) != len(content):
            raise ValueError(f"it ends within {told(name)}")
        values = torch.frombuffer(content, dtype=torch.uint8)
        if size.dtype is torch.bool and int(values.max()) > 1:
            raise ValueError(f"{told(name)} is of bools and holds the byte {int(values.max())}, expected 0 and 1")
        return values.view(size.dtype).reshape(size.shape)


def read_tensors(path: Path) -> tuple[Stored, dict[str, str]]:
    """Read all tensors and the metadata of a file whose size is known to be right.

    Raises:
        OSError: if the system refuses.
        ValueError: with a reason in words.
    """
    with open_file(path) as handle:
        file = TensorFile(path, handle)
        return file.read(), file.metadata


def open_file(path: Path) -> BufferedReader:
    """Open an ordinary file to read: a pipe would wait for ever.

    Raises:
        OSError: if the system refuses.
        ValueError: if it is no ordinary file.
    """
    if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
        raise ValueError("it is not an ordinary file")
    return path.open("rb")


def _metadata(given: Any) -> dict[str, str]:
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise ValueError(f"its {METADATA} is not a table of texts")
    return given


def _places(header: Mapping[str, Any], num_bytes: int) -> dict[str, tuple[Size, int]]:
    """Return each tensor's size and first byte, in the order of the bytes."""
    found, ends = dict[str, tuple[Size, int]](), list[tuple[int, int, str]]()
    for name, entry in header.items():
        size, begin, end = _entry(name, entry)
        if end - begin != size.num_bytes:
            raise ValueError(f"{told(name)} has the bytes {begin} to {end}, but {size} takes {size.num_bytes}")
        ends.append((begin, end, name))
        found[name] = size, begin
    at = 0
    for begin, end, name in sorted(ends):
        if begin != at:
            raise ValueError(f"{told(name)} begins at byte {begin}, expected {at}: tensors overlap or leave a gap")
        at = end
    if at != num_bytes:
        raise ValueError(f"its tensors take {at:,} bytes, and {num_bytes:,} follow the header")
    return found


def _entry(name: str, entry: Any) -> tuple[Size, int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{told(name)} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{told(name)} is of type {told(dtype)!r}; known: {', '.join(DTYPES)}")
    if not _counts(shape) or len(shape) > MOST_DIMENSIONS or math.prod(shape) >= 2**63:
        raise ValueError(f"{told(name)} has the shape {told(shape)}, expected a list of sizes")
    if not _counts(offsets) or len(offsets) != 2:
        raise ValueError(f"{told(name)} has the offsets {told(offsets)}, expected first and last byte")
    return Size(DTYPES[dtype], tuple(shape)), *offsets


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)

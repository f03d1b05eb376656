"""The idx format of MNIST and its kin, plain or gzipped.

Two zero bytes, a type, the number of axes, their big-endian lengths, then the data.

Source: http://yann.lecun.com/exdb/mnist
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from advgen import DataError, content_hash, few_notes, most_unpacked, size_text, sorted_paths
from advgen_image.config import ImageConfig
from advgen_image.decoding import Target, fit_array
from advgen_image.store import load_array

UNSIGNED_BYTE = 0x08
LARGEST_BYTES = 4 * 2**30
MOST_IMAGES = 10_000_000
GZIP_TIMES = 1032
"""Largest factor by which gzip shrinks anything."""
SLACK_BYTES = 4096
BLOCK_BYTES = 16 * 2**20
MEBIBYTE = 2**20


@dataclass(frozen=True)
class IdxFile:
    """One file, of which the header is known."""

    file: Path
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def num_bytes(self) -> int:
        """Of its data."""
        return math.prod(self.shape)

    def mark(self) -> str:
        """What tells it from others, without reading it."""
        state = self.file.stat()
        return f"{self.file.resolve()} {state.st_size} {state.st_mtime_ns}"

    def blocks(self) -> Iterator[NDArray[np.uint8]]:
        """Its data in order, along the first axis, so that memory need not hold them all.

        Raises:
            DataError: where it holds less or more than its header says.
        """
        row = self.num_bytes // len(self)
        step = max(1, BLOCK_BYTES // row)
        with _opened(self.file) as stream:
            _take(stream, self.file, 4 + 4 * len(self.shape))
            for start in range(0, len(self), step):
                num = min(step, len(self) - start)
                data = _take(stream, self.file, num * row)
                if len(data) < num * row:
                    raise self.differs(f"{start * row + len(data)}")
                yield np.frombuffer(data, np.uint8).reshape(num, *self.shape[1:])
            if _take(stream, self.file, 1):
                raise self.differs(f"more than {self.num_bytes}")

    def differs(self, found: str) -> DataError:
        """Return the refusal of a file whose data differ from its header."""
        expected = f"expected {self.num_bytes} for shape {self.shape}"
        return DataError(f"{self.file} holds {found} bytes of data, {expected}; fetch the file again")


@dataclass(frozen=True)
class IdxArrays:
    """Images and labels of idx files, training part first."""

    values: NDArray[Any]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...]
    keys: list[str]
    fingerprint: str
    num_test: int
    notes: tuple[str, ...] = ()


def _image_files(path: Path) -> list[Path]:
    """Image files, one per stem (a plain file wins over its gzipped twin)."""
    if path.is_file():
        return [path] if "idx" in path.name or "ubyte" in path.name else []
    names: dict[str, Path] = {}
    for file in sorted_paths(path.glob("*images*idx3*")):
        names.setdefault(file.name.removesuffix(".gz"), file)
    return list(names.values())


def has_idx(path: Path) -> bool:
    """Whether a path is an idx file, or a folder with idx image files in it."""
    return bool(_image_files(path))


def read_idx(path: Path, config: ImageConfig) -> IdxArrays:
    """Images of idx files in MNIST's naming; ``t10k`` or ``test`` files become the test split.

    Raises:
        DataError: naming the file that is truncated, of another type, or whose labels do not fit.
    """
    files = [_look(file, axes=3) for file in sorted(_image_files(path), key=_is_test)]
    labels = [_labels_of(each) for each in files]
    values = _load(files, _target(files, path, config), config)
    known = None if any(own is None for own in labels) else np.concatenate([own for own in labels if own is not None])
    num_test = sum(len(each) for each in files if _is_test(each.file))
    num_test = num_test if num_test < len(values) else 0
    classes = () if known is None else tuple(str(label) for label in range(int(known.max()) + 1))
    digest = content_hash([values.data.cast("B"), b"" if known is None else known.tobytes()])
    keys = [f"{index}" for index in range(len(values))]
    counts = {} if known is None or not config.conditional else _counts(known, classes)
    return IdxArrays(values, known, classes, keys, digest, num_test, few_notes(counts, "images"))


def _target(files: Sequence[IdxFile], path: Path, config: ImageConfig) -> Target:
    sizes = {each.shape[1:] for each in files}
    if len(sizes) > 1 and not (config.image_height and config.image_width):
        raise DataError(
            f"idx files in {path} hold images of different sizes {sorted(sizes)}; set options.image_height and image_width"
        )
    height, width = (asked or own for asked, own in zip((config.image_height, config.image_width), min(sizes), strict=True))
    return Target(config.channels or 1, height + config.crop_margin, width + config.crop_margin, False)


def _load(files: Sequence[IdxFile], target: Target, config: ImageConfig) -> NDArray[Any]:
    """All images in one array, block by block; beyond ``memory_mib`` in a file of the cache."""
    count = sum(len(each) for each in files)

    def fill(values: NDArray[Any]) -> tuple[list[int], list[str]]:
        start = 0
        for block in (block for each in files for block in each.blocks()):
            values[start : start + len(block)] = fit_array(block, target)
            start += len(block)
        return list(range(count)), []

    return load_array(count, target, " ".join(each.mark() for each in files), config.memory_mib * MEBIBYTE, fill).values


def _counts(labels: NDArray[np.int64], classes: tuple[str, ...]) -> dict[str, int]:
    return dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True))


def _is_test(file: Path) -> bool:
    return file.name.startswith(("t10k", "test"))


def _labels_of(images: IdxFile) -> NDArray[np.int64] | None:
    file = images.file
    name = file.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    found = [own for own in (file.with_name(name), file.with_name(name + ".gz")) if own.is_file() and own != file]
    if not found:
        return None
    labels = _look(found[0], axes=1)
    if len(labels) != len(images):
        raise DataError(f"{found[0]} holds {len(labels)} labels, expected {len(images)} as in {file.name}")
    return np.concatenate(list(labels.blocks())).astype(np.int64)


def _look(file: Path, axes: int) -> IdxFile:
    """Read a file's header, and compare it with the file's size before anything is allocated.

    Raises:
        DataError: if it is not an idx file of bytes with this number of axes, or too small for its header.
    """
    with _opened(file) as stream:
        header = _take(stream, file, 4 + 4 * axes)
    if len(header) < 4 + 4 * axes or header[:2] != b"\0\0":
        begins = (
            f"{len(header)} bytes, begins with {header[:4]!r}" if len(header) < 4 + 4 * axes else f"begins with {header[:4]!r}"
        )
        raise DataError(f"{file} is not an idx file ({begins}); expected two zero bytes and a header")
    kind, num_axes = header[2], header[3]
    if kind != UNSIGNED_BYTE or num_axes != axes:
        raise DataError(f"{file} is an idx file of type 0x{kind:02x} with {num_axes} axes, expected 0x08 (bytes) with {axes}")
    found = IdxFile(file, struct.unpack(f">{axes}I", header[4:]))
    if found.num_bytes > LARGEST_BYTES:
        raise DataError(f"{file} unpacks to more than {LARGEST_BYTES} bytes, which is refused")
    if not found.num_bytes:
        raise DataError(f"{file} holds nothing: its shape is {found.shape}; fetch the file again")
    if len(found) > MOST_IMAGES:
        raise DataError(f"{file} holds {len(found)} samples, expected at most {MOST_IMAGES}; split it and train on a part")
    _refuse_lie(found)
    return found


def _refuse_lie(found: IdxFile) -> None:
    """Refuse a header that promises more than the file can hold or, for a file that is not compressed, less."""
    file, size = found.file, found.file.stat().st_size
    if file.suffix != ".gz":
        held = size - 4 - 4 * len(found.shape)
        if held != found.num_bytes:
            raise found.differs(f"{held}" if held < found.num_bytes else f"more than {found.num_bytes}")
    elif found.num_bytes > GZIP_TIMES * size + SLACK_BYTES:
        raise found.differs(f"less than {size_text(GZIP_TIMES * size + SLACK_BYTES)}, as {size} bytes unpack to no more,")
    elif found.num_bytes > (most := most_unpacked(size)):
        raise DataError(
            f"{file} unpacks to more than {size_text(most)}, too much for a file of {size_text(size)}; unpack it yourself, or "
            "set ADVGEN_MAX_UNPACKED_GIB to a larger number of GiB if you trust it"
        )


def _opened(file: Path) -> IO[bytes]:
    try:
        return cast(IO[bytes], gzip.open(file)) if file.suffix == ".gz" else file.open("rb")
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error}); fetch the file again") from error


def _take(stream: IO[bytes], file: Path, size: int) -> bytes:
    """So many bytes, unzipped; fewer at the end."""
    try:
        return stream.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read ({error}); fetch the file again") from error

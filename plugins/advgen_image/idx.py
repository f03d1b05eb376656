"""The idx format of MNIST and its kin, plain or gzipped.

Two zero bytes, a type, the number of axes, their big-endian lengths, then the data.

Source: http://yann.lecun.com/exdb/mnist
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advgen import DataError, content_hash, few_notes
from advgen_image.config import ImageConfig
from advgen_image.decoding import fit_array

UNSIGNED_BYTE = 0x08
LARGEST_BYTES = 4 * 2**30


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
    for file in sorted(path.glob("*images*idx3*")):
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
    files = sorted(_image_files(path), key=_is_test)
    parts = [_read_array(file, axes=3) for file in files]
    labels = [_labels_of(file, len(part)) for file, part in zip(files, parts, strict=True)]
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1 and not (config.image_height and config.image_width):
        raise DataError(
            f"idx files in {path} hold images of different sizes {sorted(shapes)}; set options.image_height and image_width"
        )
    values = np.concatenate([fit_array(part, config) for part in parts])
    known = None if any(own is None for own in labels) else np.concatenate([own for own in labels if own is not None])
    num_test = sum(len(part) for file, part in zip(files, parts, strict=True) if _is_test(file))
    classes = () if known is None else tuple(str(label) for label in range(int(known.max()) + 1))
    digest = content_hash([values.tobytes(), b"" if known is None else known.tobytes()])
    keys = [f"{index}" for index in range(len(values))]
    num_test = num_test if num_test < len(values) else 0
    counts = {} if known is None or not config.conditional else _counts(known, classes)
    return IdxArrays(values, known, classes, keys, digest, num_test, few_notes(counts, "images"))


def _counts(labels: NDArray[np.int64], classes: tuple[str, ...]) -> dict[str, int]:
    return dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True))


def _is_test(file: Path) -> bool:
    return file.name.startswith(("t10k", "test"))


def _labels_of(file: Path, num_images: int) -> NDArray[np.int64] | None:
    name = file.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    found = [own for own in (file.with_name(name), file.with_name(name + ".gz")) if own.is_file() and own != file]
    if not found:
        return None
    labels = _read_array(found[0], axes=1)
    if len(labels) != num_images:
        raise DataError(f"{found[0]} holds {len(labels)} labels, expected {num_images} as in {file.name}")
    return labels.astype(np.int64)


def _read_array(file: Path, axes: int) -> NDArray[np.uint8]:
    data = _read_bytes(file)
    if len(data) < 4 + 4 * axes or data[:2] != b"\0\0":
        raise DataError(
            f"{file} is not an idx file ({len(data)} bytes, begins with {data[:4]!r}); expected two zero bytes and a header"
        )
    kind, num_axes = data[2], data[3]
    if kind != UNSIGNED_BYTE or num_axes != axes:
        raise DataError(f"{file} is an idx file of type 0x{kind:02x} with {num_axes} axes, expected 0x08 (bytes) with {axes}")
    shape = struct.unpack(f">{axes}I", data[4 : 4 + 4 * axes])
    body = len(data) - 4 - 4 * axes
    if body != math.prod(shape) or not body:
        raise DataError(
            f"{file} holds {body} bytes of data, expected {math.prod(shape)} for shape {shape}; fetch the file again"
        )
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _read_bytes(file: Path) -> bytes:
    """The file's bytes, unzipped; refuses what unpacks to more than 4 GiB."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            data = stream.read(LARGEST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read ({error}); fetch the file again") from error
    if len(data) > LARGEST_BYTES:
        raise DataError(f"{file} unpacks to more than {LARGEST_BYTES} bytes, which is refused")
    return data

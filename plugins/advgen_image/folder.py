"""A folder or list of images as one array in memory or memory-mapped from the user's cache."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advgen import DataError, ManifestRow, cache_folder, content_hash, is_manifest, read_manifest
from advgen_image.config import ImageConfig
from advgen_image.decoding import SUFFIXES, BadImage, Header, Target, decode, read_header

LARGEST_IN_MEMORY = 512 * 2**20
CHUNK = 1024


@dataclass(frozen=True)
class FolderArrays:
    """Images of a folder, with the files that were left out."""

    values: NDArray[Any]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...]
    keys: list[str]
    fingerprint: str
    bad: tuple[str, ...]
    named_splits: tuple[str | None, ...] | None = None


@dataclass(frozen=True)
class Listing:
    """Which files a data set has.

    Args:
        place: the folder or the list.
        rows: name, label and split by file; the label of a folder's is their first sub-folder.
        bad: rows of a list that cannot be used, with reasons.
    """

    place: Path
    rows: dict[Path, ManifestRow]
    bad: list[str]

    def name(self, file: Path) -> str:
        """What the data set calls a file."""
        return self.rows[file].name


def read_folder(place: Path, config: ImageConfig, max_bad: int) -> FolderArrays:
    """Every image below a folder or in a list, decoded once.

    Raises:
        DataError: where there are no images, sizes differ without a wanted size, or more than ``max_bad`` are unreadable.
    """
    listing = list_images(place)
    headers, bad = _read_headers(listing)
    _refuse_too_many(bad, max_bad, place, len(headers))
    target = _target(headers, listing, config)
    fingerprint = _fingerprint(list(headers), listing)
    values, kept, damaged = _load(list(headers), target, listing, fingerprint)
    bad += damaged
    _refuse_too_many(bad, max_bad, place, len(kept))
    rows = [listing.rows[file] for file in kept]
    labels, classes = _labels(rows)
    named = tuple(row.split for row in rows) if is_manifest(place) else None
    return FolderArrays(values, labels, classes, [row.name for row in rows], fingerprint, tuple(bad), named)


def list_images(place: Path) -> Listing:
    """The images of a folder or list, headers not read yet.

    Raises:
        DataError: where there are none.
    """
    bad: list[str] = []
    if is_manifest(place):
        found = read_manifest(place, lambda name, reason: bad.append(f"{name}: {reason}"))
        rows = {row.path: row for row in found if not _is_part(row, bad)}
        if not rows and not bad:
            raise DataError(f"{place} lists no images; expected a row for each, its path in the column path")
        return Listing(place, rows, bad)
    rows = {}
    for file in _image_files(place):
        name = file.relative_to(place).as_posix()
        rows[file] = ManifestRow(name, file, name.split("/")[0] if "/" in name else None)
    return Listing(place, rows, bad)


def _is_part(row: ManifestRow, bad: list[str]) -> bool:
    if row.start_seconds or row.duration_seconds is not None:
        bad.append(f"{row.name}: start and duration are of sounds, an image has none")
        return True
    return False


def _image_files(folder: Path) -> list[Path]:
    if folder.is_file():
        raise DataError(f"{folder} is a file, expected a folder of images, a .csv, .tsv or .jsonl list, or an idx file")
    every = [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    files = [file for file in every if file.suffix.lower() in SUFFIXES]
    if not files:
        seen = ", ".join(name or "no suffix" for name, _ in Counter(f.suffix for f in every).most_common(5)) or "nothing"
        raise DataError(f"{folder} holds no images (found: {seen}); expected {' '.join(SUFFIXES)} or idx files")
    return files


def _read_headers(listing: Listing) -> tuple[dict[Path, Header], list[str]]:
    headers, bad = {}, list(listing.bad)
    for file in listing.rows:
        try:
            headers[file] = read_header(file)
        except (BadImage, OSError) as error:
            bad.append(f"{listing.name(file)}: {error}")
    return headers, bad


def _refuse_too_many(bad: list[str], max_bad: int, folder: Path, num_good: int) -> None:
    if len(bad) <= max_bad and num_good:
        return
    listed = "\n  ".join(bad[:20])
    if not num_good:
        raise DataError(
            f"none of the {len(bad)} images in {folder} can be read; repair them, or give another folder:\n  {listed}"
        )
    raise DataError(
        f"{len(bad)} of {len(bad) + num_good} images in {folder} cannot be read, at most {max_bad} may be left out; "
        f"repair or remove them, or raise data.max_bad:\n  {listed}"
    )


def _target(headers: dict[Path, Header], listing: Listing, config: ImageConfig) -> Target:
    """The common size and kind of all files."""
    sizes = Counter((header.height, header.width) for header in headers.values())
    (height, width), _ = sizes.most_common(1)[0]
    if len(sizes) > 1 and not (config.image_height and config.image_width):
        odd = next(file for file, header in headers.items() if (header.height, header.width) != (height, width))
        raise DataError(
            f"images in {listing.place} have {len(sizes)} sizes: mostly {height}x{width}, but {listing.name(odd)} is "
            f"{headers[odd].height}x{headers[odd].width}; set options.image_height and options.image_width to resize and crop"
        )
    alpha = any(header.alpha for header in headers.values())
    colour = any(header.colour for header in headers.values())
    channels = config.channels or (4 if alpha else 3 if colour else 1)
    deep = all(header.deep for header in headers.values())
    return Target(channels, config.image_height or height, config.image_width or width, deep)


def _labels(rows: list[ManifestRow]) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Numbers and names of the classes; none where any image has no label (lies at the folder's top)."""
    owners = [row.label for row in rows if row.label is not None]
    if len(owners) < len(rows):
        return None, ()
    classes = tuple(sorted(set(owners)))
    number = {name: index for index, name in enumerate(classes)}
    return np.array([number[name] for name in owners], dtype=np.int64), classes


def _fingerprint(files: list[Path], listing: Listing) -> str:
    """Over the content; over names, sizes and times where that would mean reading more than 512 MB."""
    states = [file.stat() for file in files]
    names = [listing.name(file).encode() for file in files]
    if is_manifest(listing.place):
        names = [f"{row.name}\t{row.label}\t{row.split}".encode() for row in (listing.rows[file] for file in files)]
    if sum(state.st_size for state in states) > LARGEST_IN_MEMORY:
        times = [f"{state.st_size} {state.st_mtime_ns}".encode() for state in states]
        return content_hash(part for pair in zip(names, times, strict=True) for part in pair)
    return content_hash(part for name, file in zip(names, files, strict=True) for part in (name, file.read_bytes()))


def _load(files: list[Path], target: Target, listing: Listing, fingerprint: str) -> tuple[NDArray[Any], list[Path], list[str]]:
    """Decoded images (N, C, H, W), the files they came from, and complaints on the others."""
    shape = (len(files), target.channels, target.height, target.width)
    if int(np.prod(shape)) * np.dtype(target.dtype).itemsize > LARGEST_IN_MEMORY:
        return _load_mapped(files, target, listing, fingerprint)
    values = np.empty(shape, target.dtype)
    kept, bad = _decode_into(values, files, target, listing)
    return values[: len(kept)], kept, bad


def _load_mapped(
    files: list[Path], target: Target, listing: Listing, fingerprint: str
) -> tuple[NDArray[Any], list[Path], list[str]]:
    """As ``_load``, through an array file in the user's cache that later runs reuse."""
    cache = cache_folder() / "images"
    cache.mkdir(parents=True, exist_ok=True)
    name = content_hash([fingerprint.encode(), repr(target).encode()])[:32]
    array_file, index_file = cache / f"{name}.npy", cache / f"{name}.json"
    if not (array_file.is_file() and index_file.is_file()):
        _build_cache(files, target, listing, array_file, index_file)
    index = json.loads(index_file.read_text())
    values = np.load(array_file, mmap_mode="r", allow_pickle=False)[: len(index["kept"])]
    places = {row.name: file for file, row in listing.rows.items()}
    return values, [places[name] for name in index["kept"]], list(index["bad"])


def _build_cache(files: list[Path], target: Target, listing: Listing, array_file: Path, index_file: Path) -> None:
    """Write beside, then rename: a reader never sees half a cache."""
    shape = (len(files), target.channels, target.height, target.width)
    with tempfile.TemporaryDirectory(dir=array_file.parent) as scratch:
        draft = Path(scratch) / "values.npy"
        values = np.lib.format.open_memmap(draft, mode="w+", dtype=target.dtype, shape=shape)
        kept, bad = _decode_into(values, files, target, listing)
        values.flush()
        index = Path(scratch) / "index.json"
        index.write_text(json.dumps({"kept": [listing.name(file) for file in kept], "bad": bad}))
        os.replace(draft, array_file)
        os.replace(index, index_file)


def _decode_into(values: NDArray[Any], files: list[Path], target: Target, listing: Listing) -> tuple[list[Path], list[str]]:
    """Fill ``values`` from the start, in the files' order, leaving no gap for a damaged one."""
    kept: list[Path] = []
    bad: list[str] = []
    for file, result in _decode_all(files, target):
        if isinstance(result, Exception):
            bad.append(f"{listing.name(file)}: {result}")
        else:
            values[len(kept)] = result
            kept.append(file)
    return kept, bad


def _decode_all(files: list[Path], target: Target) -> Iterator[tuple[Path, NDArray[Any] | Exception]]:
    def attempt(file: Path) -> NDArray[Any] | Exception:
        try:
            return decode(file, target)
        except (BadImage, OSError) as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), CHUNK):
            chunk = files[start : start + CHUNK]
            yield from zip(chunk, pool.map(attempt, chunk), strict=True)

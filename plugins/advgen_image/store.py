"""Pictures decoded once: into memory, or into an array file in the user's cache that later runs map.

An array file is written beside its place under a lock, then renamed: no reader sees half of one, an interrupted writer leaves
nothing that is taken for whole, and what it left is swept by the next. Legend: N pictures, C channels, H height, W width.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from advgen import DataError, cache_folder, content_hash, free_bytes, replace_file
from advgen_image.decoding import BadImage, Target, decode_each
from advgen_image.listing import Item

VERSION = 2
CHUNK = 1024
DRAFT, LOCK = ".decoding-", "lock"
ZEROS = 2**20
JUST_MADE_SECONDS = 60


@dataclass(frozen=True)
class Picture:
    """One sample: a file, and which of its pictures."""

    item: Item
    frame: int = 0

    @property
    def name(self) -> str:
        """For complaints."""
        return f"{self.item.name} picture {self.frame}" if self.frame else self.item.name


Fill = Callable[[NDArray[Any]], tuple[list[int], list[str]]]
"""Writes pictures into an array from its start; says which ones these are, and complains of the others."""


@dataclass(frozen=True)
class Loaded:
    """Decoded pictures.

    Args:
        values: (N, C, H, W), in memory or mapped.
        kept: which of the pictures these are.
        bad: complaints on the others.
    """

    values: NDArray[Any]
    kept: list[int]
    bad: list[str]


def num_bytes(count: int, target: Target) -> int:
    """What so many decoded pictures take."""
    return count * target.channels * target.height * target.width * np.dtype(target.dtype).itemsize


def load_pictures(pictures: Sequence[Picture], target: Target, fingerprint: str, limit_bytes: int) -> Loaded:
    """All pictures in one array; beyond the limit in a file of the cache.

    Raises:
        DataError: where the cache cannot be written.
    """
    key = f"{fingerprint} {content_hash(str(picture.frame).encode() for picture in pictures)}"
    return load_array(len(pictures), target, key, limit_bytes, lambda values: _decode_into(values, pictures, target))


def load_array(count: int, target: Target, key: str, limit_bytes: int, fill: Fill) -> Loaded:
    """So many pictures in one array; beyond the limit in a file of the cache, which ``key`` tells from others.

    Raises:
        DataError: where the cache cannot be written.
    """
    if num_bytes(count, target) > limit_bytes:
        return _load_mapped(count, target, key, fill)
    values = np.empty((count, target.channels, target.height, target.width), target.dtype)
    kept, bad = fill(values)
    return Loaded(values[: len(kept)], kept, bad)


def _load_mapped(count: int, target: Target, key: str, fill: Fill) -> Loaded:
    cache = cache_folder() / "images"
    name = content_hash([key.encode(), repr((VERSION, target)).encode()])[:32]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{name}.lock"):  # other processes wait for the result instead of decoding too
            found = _open_cache(cache, name, target)
            if found is None:
                _build_cache(cache, name, count, target, fill)
                found = _open_cache(cache, name, target)
    except OSError as error:
        needed = num_bytes(count, target) / 2**20
        raise DataError(
            f"decoded images take {needed:.0f} MiB and cannot be kept in {cache}: {error.strerror or error}; make room there, "
            "set XDG_CACHE_HOME to another place, or raise options.memory_mib to hold them in memory"
        ) from error
    if found is None:
        raise DataError(f"{cache / name}.npy was written and cannot be read; remove it and look at the disk")
    return found


def _open_cache(cache: Path, name: str, target: Target) -> Loaded | None:
    """A whole entry; None where there is none, or it is damaged."""
    try:
        index = json.loads((cache / f"{name}.json").read_text(encoding="utf-8"))
        kept, bad = [int(place) for place in index["kept"]], [str(reason) for reason in index["bad"]]
        values = np.load(cache / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    whole = values.shape[1:] == (target.channels, target.height, target.width) and values.dtype == target.dtype
    return Loaded(values[: len(kept)], kept, bad) if whole and len(kept) <= len(values) else None


def _build_cache(cache: Path, name: str, count: int, target: Target, fill: Fill) -> None:
    """Write beside, then rename, the index last: it is what marks an entry as whole."""
    _sweep(cache)
    if num_bytes(count, target) > free_bytes(cache):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        tempfile.TemporaryDirectory(dir=cache, prefix=DRAFT, ignore_cleanup_errors=True) as scratch,
        FileLock(Path(scratch) / LOCK),
    ):
        draft, index = Path(scratch) / "values.npy", Path(scratch) / "index.json"
        kept, bad = _fill_draft(draft, count, target, fill)
        index.write_text(json.dumps({"kept": kept, "bad": bad}), encoding="utf-8", newline="\n")
        (cache / f"{name}.json").unlink(missing_ok=True)
        replace_file(draft, cache / f"{name}.npy")
        replace_file(index, cache / f"{name}.json")


def _fill_draft(draft: Path, count: int, target: Target, fill: Fill) -> tuple[list[int], list[str]]:
    """Fill an array file through a map. The map is closed on return, because Windows cannot rename a mapped file."""
    shape = (count, target.channels, target.height, target.width)
    np.lib.format.open_memmap(draft, mode="w+", dtype=target.dtype, shape=shape)
    _reserve(draft, num_bytes(count, target))
    values = np.load(draft, mmap_mode="r+", allow_pickle=False)
    found = fill(values)
    values.flush()
    return found


def _reserve(file: Path, num_last: int) -> None:
    """Reserve disk space for the last bytes now. If the disk filled up later, writing to the map would kill the process."""
    with file.open("rb+") as stream:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
            return
        stream.seek(-num_last, os.SEEK_END)
        for start in range(0, num_last, ZEROS):
            stream.write(bytes(min(ZEROS, num_last - start)))


def _sweep(cache: Path) -> None:
    """Remove what killed processes left: the lock of a draft dies with its writer, who takes it at once."""
    for draft in cache.glob(f"{DRAFT}*"):
        with contextlib.suppress(OSError):
            if time.time() - draft.stat().st_mtime > JUST_MADE_SECONDS:
                with FileLock(draft / LOCK, timeout=0):
                    pass  # no process holds it
                shutil.rmtree(draft, ignore_errors=True)


def _decode_into(values: NDArray[Any], pictures: Sequence[Picture], target: Target) -> tuple[list[int], list[str]]:
    """Fill ``values`` from the start, in the pictures' order, leaving no gap for a damaged one."""
    kept: list[int] = []
    bad: list[str] = []
    for place, result in enumerate(_decode_all(pictures, target)):
        if isinstance(result, Exception):
            bad.append(f"{pictures[place].name}: {result}")
        else:
            values[len(kept)] = result
            kept.append(place)
    return kept, bad


def _decode_all(pictures: Sequence[Picture], target: Target) -> Iterator[NDArray[Any] | Exception]:
    """In order; the pictures of one file, which follow each other, are decoded in one pass."""
    files = [list(group) for _, group in groupby(pictures, key=lambda picture: id(picture.item))]

    def attempt(group: list[Picture]) -> list[NDArray[Any] | Exception]:
        try:
            return list(decode_each(group[0].item.place, target, [picture.frame for picture in group]))
        except (BadImage, OSError) as error:
            return [error] * len(group)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), CHUNK):
            for results in pool.map(attempt, files[start : start + CHUNK]):
                yield from results

"""Which images a data set has: below a folder, in a list, or in a zip archive that is read in place. Nothing is decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from advgen import (
    DataError,
    DataRequest,
    ManifestRow,
    ZipFolder,
    counted,
    is_manifest,
    is_table_set,
    is_zip,
    read_manifest,
    sorted_paths,
    unpacked,
)
from advgen_image.config import ImageConfig
from advgen_image.decoding import SUFFIXES, Place
from advgen_image.hub import Row, find_rows


@dataclass(frozen=True)
class Item:
    """One image file, wherever it lies.

    Args:
        name: what the data set calls it.
        place: its path, or what opens it.
        label, split: None where the data set has none for it.
        num_bytes: its size where it has no path.
        mark: what tells its content from another of that name and size, where it has no path.
    """

    name: str
    place: Place
    label: str | None = None
    split: str | None = None
    num_bytes: int = 0
    mark: str = ""

    def state(self) -> tuple[int, str]:
        """Its size, and what changes with its content, without reading it."""
        if not isinstance(self.place, Path):
            return self.num_bytes, f"{self.num_bytes} {self.mark}"
        found = self.place.stat()
        return found.st_size, f"{found.st_size} {found.st_mtime_ns}"

    def read(self) -> bytes:
        """The whole file."""
        if isinstance(self.place, Path):
            return self.place.read_bytes()
        with self.place() as stream:
            return stream.read()


@dataclass(frozen=True)
class Listing:
    """Which files a data set has.

    Args:
        place: the folder, list, archive or address, for messages.
        kind: ``folder``, ``list``, ``zip`` or ``hub``.
        items: in a fixed order; the label of a folder's is their first sub-folder.
        bad: entries that cannot be used, with reasons.
        classes: the order of the classes, where the data set has one of its own.
    """

    place: str
    kind: str
    items: list[Item]
    bad: list[str]
    classes: tuple[str, ...] = ()

    @property
    def way_to_label(self) -> str:
        """What a user does about images without a class."""
        ways = {"list": "give each a label there", "hub": "label them, or name another options.label_column"}
        return ways.get(self.kind, "move what lies beside the class folders into one of them")

    @property
    def names_splits(self) -> bool:
        """Whether the data set itself says which images are held out, so that labels and splits are its content too."""
        return self.kind in ("list", "hub")


def list_images(config: ImageConfig, request: DataRequest) -> Listing:
    """The images of what was asked for, headers not read yet.

    Raises:
        DataError: where there are none.
    """
    place = request.path
    if place is None:
        found = find_rows(request.address, config)
        return Listing(request.address, "hub", [_item_of(row) for row in found.rows], found.bad, found.classes)
    if is_zip(place):
        archive = ZipFolder(place)
        names = [name for name in archive.files if _is_image(Path(name))]
        return Listing(str(place), "zip", [_item_in(archive, name) for name in names], [])
    if is_manifest(place):
        return _read_list(place)
    if is_table_set(place, has_images(place)):
        found = find_rows(place, config)
        return Listing(str(place), "hub", [_item_of(row) for row in found.rows], found.bad, found.classes)
    return Listing(str(place), "folder", [_item_below(place, file) for file in _image_files(place)], [])


@contextmanager
def unzipped(request: DataRequest) -> Iterator[DataRequest]:
    """The request, its zip archive unpacked where that holds no images to read in place: idx files, a list, a saved set.

    Raises:
        DataError: what the caller raises, with the archive's name.
    """
    if request.path is None or not is_zip(request.path) or _holds_images(request.path):
        yield request
        return
    folder = unpacked(request.path)
    try:
        yield replace(request, path=folder)
    except DataError as error:
        raise DataError(f"{request.path}, unpacked: {error}") from error


def has_images(place: Path) -> bool:
    """Whether any image lies below a folder."""
    return place.is_dir() and any(_is_image(file) for file in place.rglob("*"))


def _holds_images(archive: Path) -> bool:
    """Whether a zip archive is images, without a list of them."""
    names = [Path(name) for name in ZipFolder(archive).files]
    return any(_is_image(name) for name in names)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def _item_below(folder: Path, file: Path) -> Item:
    name = file.relative_to(folder).as_posix()
    return Item(name, file, _first_folder(name))


def _item_in(archive: ZipFolder, name: str) -> Item:
    info = archive.files[name]
    return Item(name, partial(archive.open, name), _first_folder(name), None, info.file_size, f"{info.CRC:08x}")


def _first_folder(name: str) -> str | None:
    return name.split("/")[0] if "/" in name else None


def _item_of(row: Row) -> Item:
    return Item(row.name, row.place, row.label, row.split, row.num_bytes)


def _read_list(place: Path) -> Listing:
    bad: list[str] = []
    found = read_manifest(place, lambda name, reason: bad.append(f"{name}: {reason}"))
    items = [Item(row.name, row.path, row.label, row.split) for row in found if not _is_part(row, bad)]
    if not items and not bad:
        raise DataError(f"{place} lists no images; expected a row for each, its path in the column path")
    return Listing(str(place), "list", items, bad)


def _is_part(row: ManifestRow, bad: list[str]) -> bool:
    if row.start_seconds or row.duration_seconds is not None:
        bad.append(f"{row.name}: start and duration are of sounds, an image has none")
        return True
    return False


def _image_files(folder: Path) -> list[Path]:
    if folder.is_file():
        expected = "a folder or zip archive of images, a .csv, .tsv or .jsonl list, an idx file, or a .parquet or .arrow file"
        if _is_image(folder):
            there = counted(sum(_is_image(file) for file in folder.parent.iterdir()), "image")
            raise DataError(
                f"{folder} is one image, expected {expected}; its folder has {there}: give that, --data {folder.parent}"
            )
        raise DataError(f"{folder} is a file, expected {expected}")
    every = [file for file in sorted_paths(folder.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    files = [file for file in every if _is_image(file)]
    if not files:
        seen = ", ".join(name or "no suffix" for name, _ in Counter(f.suffix for f in every).most_common(5)) or "nothing"
        raise DataError(
            f"{folder} holds no images (found: {seen}); expected {' '.join(SUFFIXES)}, idx files, or a Hugging Face data set"
        )
    return files

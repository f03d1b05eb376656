"""``--data archive.zip``: unpacked once into the cache, under the archive's own hash, for any plugin, or read in place.

Only plain files are taken out, and only below the target. Limits on bytes, files and names act before anything is written.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from advgen.cache import cache_folder
from advgen.data.members import BLOCK, DAMAGE, Budget, Member, damaged, refuse, refuse_many
from advgen.data.tar_members import tar_members
from advgen.data.zip_members import open_zip, stepwise, zip_members
from advgen.errors import ConfigError, DataError
from advgen.files import replace_file, sorted_paths, suits_windows
from advgen.limits import free_bytes, most_unpacked

ZIP = (".zip",)
TAR = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")

STRICT_NAMES = os.name == "nt"
"""Whether this system reads some names as others: ``aux.png`` as a device, ``a:b`` as a stream of the file ``a``."""


def is_archive(path: Path) -> bool:
    """Whether a path is a file that is named like an archive."""
    return path.name.lower().endswith(ZIP + TAR) and path.is_file()


def is_zip(path: Path) -> bool:
    """Whether a path is a file that is named like a zip archive, whose files can be read in place."""
    return path.name.lower().endswith(ZIP) and path.is_file()


class ZipFolder:
    """The files of a zip archive, read in place; many threads may read at once.

    Args:
        archive: its path; its content is judged as before unpacking it.

    Raises:
        DataError: if it is damaged or too large, or holds anything but plain files.
    """

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        try:
            self._whole, placed = open_zip(archive)
            most = most_unpacked(archive.stat().st_size)
        except OSError as error:
            raise DataError(f"{archive} cannot be read: {error.strerror or error}") from error
        Budget(archive, most, most, archive).check(sum(info.file_size for info in placed.values()))
        top = _common_folder(list(placed))
        self.files = {place.relative_to(top).as_posix(): placed[place] for place in sorted_paths(placed)}
        """By name, in a folder's order; without the folders that all of them are in, as these are not unpacked either."""

    def open(self, name: str) -> IO[bytes]:
        """Open one file, seekable; damage raises on reading. It never gives more bytes than ``files`` says."""
        return stepwise(self._whole.open(self.files[name]))


def _common_folder(places: list[Path]) -> Path:
    """The innermost folder that holds all the files."""
    return Path(os.path.commonpath([place.parent for place in places]))


def unpacked(archive: Path) -> Path:
    """Where an archive's content lies: its folder, or the one file or folder in it.

    Raises:
        DataError: if it is damaged, holds anything but plain files or only another archive, is too large, or cannot be
            unpacked.
    """
    try:
        with archive.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        target = cache_folder() / "archives" / digest[:32]
        if not target.is_dir():
            _unpack(archive, target)
    except OSError as error:
        raise DataError(
            f"{archive} cannot be unpacked to {cache_folder()}: {error.strerror or error}; make room there, set XDG_CACHE_HOME "
            "to another place, or unpack it yourself and give the folder"
        ) from error
    found = _inside(target)
    if is_archive(found):
        raise DataError(f"{archive} holds only another archive, {found.name}; unpack it once yourself and give that archive")
    return found


def own_folder(path: Path) -> Path | None:
    """Return the folder of the cache that a file was unpacked or fetched to; None for files that lie elsewhere."""
    try:
        cache = cache_folder().resolve()
    except ConfigError:  # there is none, so nothing lies in it
        return None
    for base in (cache / "archives", cache / "sets"):
        if path.resolve().is_relative_to(base) and path.resolve() != base:
            return base / path.resolve().relative_to(base).parts[0]
    return None


def _inside(folder: Path) -> Path:
    """The folder, or what is alone in it: many archives hold one folder of the same name."""
    entries = sorted_paths(folder.iterdir())
    return _inside(entries[0]) if len(entries) == 1 and entries[0].is_dir() else entries[0] if len(entries) == 1 else folder


def _unpack(archive: Path, target: Path) -> None:
    """Unpack beside the target, then rename: nobody sees half an archive."""
    budget = Budget(archive, most_unpacked(archive.stat().st_size), free_bytes(target.parent), target.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=target.parent))
    try:
        _write_all(archive, draft, budget)
        _publish(draft, target)
    except DAMAGE as error:
        raise damaged(archive, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _publish(draft: Path, target: Path) -> None:
    try:
        replace_file(draft, target)
    except OSError:
        if not target.is_dir():  # else another process was quicker, with the same content
            raise


def _write_all(archive: Path, folder: Path, budget: Budget) -> None:
    num_made = 0
    for member in _members(archive, budget):
        if STRICT_NAMES and not all(map(suits_windows, member.place.parts)):
            refuse(archive, member.name, "has a name that Windows does not take")
        path = folder / member.place
        if not path.resolve().is_relative_to(folder.resolve()):
            refuse(archive, member.name, "points outside of the archive")
        num_made += 1 + _make_folders(path.parent, archive, member.name)
        refuse_many(archive, num_made)
        if path.exists():
            refuse(archive, member.name, "comes twice, or differs from another name only in what this system ignores")
        _write(member, path, archive)
    if not num_made:
        raise DataError(f"{archive} holds no files; expected an archive of samples")


def _make_folders(folder: Path, archive: Path, name: str) -> int:
    """Make a folder and those above it, and return how many are new."""
    missing = []
    while not folder.is_dir():
        if folder.exists():
            refuse(archive, name, "lies below a file of the archive")
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir()
    return len(missing)


def _write(member: Member, path: Path, archive: Path) -> None:
    num_bytes = 0
    with path.open("xb") as out:
        while block := member.stream.read(BLOCK):
            num_bytes += len(block)
            out.write(block)
    if num_bytes != member.num_bytes:
        refuse(archive, member.name, f"holds {num_bytes} bytes, and its header says {member.num_bytes}")
    os.utime(path, (0, 0))  # so that unpacking again gives the same fingerprint


def _members(archive: Path, budget: Budget) -> Iterator[Member]:
    return zip_members(archive, budget) if archive.name.lower().endswith(ZIP) else tar_members(archive, budget)

"""``--data archive.zip``: unpacked once into the cache, under the archive's own hash, for any plugin, or read in place.

Only plain files are taken out, and only below the target: no links, no absolute names, no ``..``, a limit on bytes and files.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from advgen.cache import cache_folder
from advgen.errors import DataError
from advgen.files import replace_file, sorted_paths, suits_windows

ZIP = (".zip",)
TAR = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
LARGEST_BYTES = 32 * 2**30
MOST_FILES = 2_000_000
BLOCK = 2**20
STRICT_NAMES = os.name == "nt"
"""Whether this system reads some names as others: ``aux.png`` as a device, ``a:b`` as a stream of the file ``a``."""
JUNK = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")

DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, RuntimeError, NotImplementedError)

Member = tuple[str, IO[bytes]]


def is_archive(path: Path) -> bool:
    """Whether a path is a file that is named like an archive."""
    return path.name.lower().endswith(ZIP + TAR) and path.is_file()


def is_zip(path: Path) -> bool:
    """Whether a path is a file that is named like a zip archive, whose files can be read in place."""
    return path.name.lower().endswith(ZIP) and path.is_file()


class ZipFolder:
    """The files of a zip archive, read in place; many threads may read at once.

    Args:
        archive: its path; what it holds is judged as before unpacking it, but for the limit on bytes.

    Raises:
        DataError: where it is damaged, or holds anything but plain files.
    """

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        try:
            self._whole = zipfile.ZipFile(archive)
            infos = [info for info in self._whole.infolist() if _is_plain(info, archive)]
        except OSError as error:
            raise DataError(f"{archive} cannot be read: {error.strerror or error}") from error
        except DAMAGE as error:
            raise _damaged(archive, error) from error
        placed = {place: info for info in infos if (place := _safe(info.filename, archive)) is not None}
        if not placed:
            raise DataError(f"{archive} holds no files; expected an archive of samples")
        if len(placed) > MOST_FILES:
            raise DataError(f"{archive} holds {len(placed)} files, more than {MOST_FILES}; unpack it and give the folder")
        top = _common_folder(list(placed))
        self.files = {place.relative_to(top).as_posix(): placed[place] for place in sorted_paths(placed)}
        """By name, in a folder's order; without the folders that all of them are in, as these are not unpacked either."""

    def open(self, name: str) -> IO[bytes]:
        """One file, seekable; what is damaged or encrypted raises on reading."""
        return self._whole.open(self.files[name])


def _is_plain(info: zipfile.ZipInfo, archive: Path) -> bool:
    if (info.external_attr >> 16) & 0o170000 == 0o120000:
        raise _refusal(archive, info.filename, "is a link")
    return not info.is_dir()


def _common_folder(places: list[Path]) -> Path:
    """The innermost folder that holds all the files."""
    return Path(os.path.commonpath([place.parent for place in places]))


def _damaged(archive: Path, error: BaseException) -> DataError:
    return DataError(f"{archive} is damaged, encrypted or no archive of its kind ({error}); fetch or pack it again")


def unpacked(archive: Path) -> Path:
    """Where an archive's content lies: its folder, or the one file or folder in it.

    Raises:
        DataError: where it is damaged, holds anything but plain files, is too large, or cannot be unpacked.
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
    return _inside(target)


def _inside(folder: Path) -> Path:
    """The folder, or what is alone in it: many archives hold one folder of the same name."""
    entries = sorted_paths(folder.iterdir())
    return _inside(entries[0]) if len(entries) == 1 and entries[0].is_dir() else entries[0] if len(entries) == 1 else folder


def _unpack(archive: Path, target: Path) -> None:
    """Unpack beside the target, then rename: nobody sees half an archive."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=target.parent))
    try:
        _write_all(archive, draft)
        _publish(draft, target)
    except DAMAGE as error:
        raise _damaged(archive, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _publish(draft: Path, target: Path) -> None:
    try:
        replace_file(draft, target)
    except OSError:
        if not target.is_dir():  # else another process was quicker, with the same content
            raise


def _write_all(archive: Path, folder: Path) -> None:
    num_files = num_bytes = 0
    for name, stream in _members(archive):
        place = _safe(name, archive)
        if place is None:
            continue
        num_files += 1
        if STRICT_NAMES and not all(map(suits_windows, place.parts)):
            raise _refusal(archive, name, "has a name that Windows does not take")
        path = folder / place
        if not path.resolve().is_relative_to(folder.resolve()):
            raise _refusal(archive, name, "points outside of the archive")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise _refusal(archive, name, "comes twice, or differs from another name only in what this system ignores")
        with path.open("xb") as out:
            while block := stream.read(BLOCK):
                num_bytes += len(block)
                if num_bytes > LARGEST_BYTES or num_files > MOST_FILES:
                    limit = f"{LARGEST_BYTES >> 30} GiB or {MOST_FILES} files"
                    raise DataError(f"{archive} unpacks to more than {limit}; unpack it yourself and give the folder")
                out.write(block)
        os.utime(path, (0, 0))  # so that unpacking again gives the same fingerprint
    if not num_files:
        raise DataError(f"{archive} holds no files; expected an archive of samples")


def _members(archive: Path) -> Iterator[Member]:
    return _zip_members(archive) if archive.name.lower().endswith(ZIP) else _tar_members(archive)


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as whole:
        for info in whole.infolist():
            if _is_plain(info, archive):
                with whole.open(info) as stream:
                    yield info.filename, stream


def _tar_members(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive) as whole:
        for info in whole:
            if not (info.isfile() or info.isdir()):
                raise _refusal(archive, info.name, "is a link or device")
            if info.isfile() and (stream := whole.extractfile(info)) is not None:
                with stream:
                    yield info.name, stream


def _safe(name: str, archive: Path) -> Path | None:
    """A member's place below the target; None for what file managers leave behind."""
    place = PurePosixPath(name.replace("\\", "/"))
    parts = place.parts
    if not parts or place.is_absolute() or ".." in parts or ":" in parts[0] or "\0" in name:
        raise _refusal(archive, name, "points outside of the archive")
    hidden = any(part in JUNK or part.startswith("._") for part in parts)
    return None if hidden else Path(*parts)


def _refusal(archive: Path, name: str, what: str) -> DataError:
    return DataError(f"{archive}: {name!r} {what}; expected plain files in folders. Unpack it yourself if you trust it")

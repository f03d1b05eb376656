"""Members of archives: names and sizes, judged before anything is written. Torch-free.

A header may lie about every size. So nothing is allocated by what it says, and what it says counts against a limit first.
"""

from __future__ import annotations

import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NoReturn

from advgen.errors import DataError
from advgen.limits import WAY_OUT, size_text

MOST_FILES = 2_000_000
LONGEST_NAME = 1024
LONGEST_PART = 255
DEEPEST = 64
BLOCK = 2**20
JUNK = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")

_OF_LIBRARIES = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, struct.error)
_OF_PYTHON = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError)
DAMAGE = (*_OF_LIBRARIES, *_OF_PYTHON)
"""All that the libraries raise on headers that are wrong."""


@dataclass(frozen=True)
class Member:
    """A file of an archive.

    Args:
        place: below the folder to unpack to.
        num_bytes: its size as its header says; ``stream`` never gives more.
    """

    name: str
    place: Path
    num_bytes: int
    stream: IO[bytes]


@dataclass(frozen=True)
class Budget:
    """The bytes that an archive may unpack to.

    Args:
        most: by its own size.
        room: on the disk.
        folder: on that disk, for messages.
    """

    archive: Path
    most: int
    room: int
    folder: Path

    def check(self, num_bytes: int) -> None:
        """Refuse a total.

        Raises:
            DataError: with the limit that it is above.
        """
        if num_bytes > self.most:
            raise DataError(
                f"{self.archive} unpacks to more than {size_text(self.most)}, too much for an archive of "
                f"{size_text(self.archive.stat().st_size)}; unpack it yourself and give the folder, or {WAY_OUT}"
            )
        if num_bytes > self.room:
            raise DataError(
                f"{self.archive} unpacks to more than the {size_text(self.room)} that are free for it in {self.folder}; make "
                "room there, set XDG_CACHE_HOME to another place, or unpack it yourself and give the folder"
            )


def refuse(archive: Path, name: str, what: str) -> NoReturn:
    """Refuse an archive because of a member.

    Raises:
        DataError: always.
    """
    shown = repr(name) if len(name) <= 100 else f"{name[:100]!r}..."
    raise DataError(f"{archive}: {shown} {what}; expected plain files in folders. Unpack it yourself if you trust it")


def damaged(archive: Path, error: BaseException) -> DataError:
    """Return the refusal of an archive that cannot be read."""
    told = " ".join(str(error).split())[:200] or type(error).__name__
    return DataError(f"{archive} is damaged, encrypted or no archive of its kind ({told}); fetch or pack it again")


def refuse_many(archive: Path, count: int) -> None:
    """Refuse more files and folders than a file system likes.

    Raises:
        DataError: if there are more than two million.
    """
    if count > MOST_FILES:
        raise DataError(f"{archive} holds more than {MOST_FILES} files and folders; unpack it and give the folder")


def safe_place(name: str, archive: Path) -> Path | None:
    """Return a member's place below the target; None for files that file managers leave behind.

    Raises:
        DataError: if it points outside, or no file system takes it.
    """
    place = PurePosixPath(name.replace("\\", "/"))
    parts = place.parts
    if not parts or place.is_absolute() or ".." in parts or ":" in parts[0] or "\0" in name:
        refuse(archive, name, "points outside of the archive")
    if any(part in JUNK or part.startswith("._") for part in parts):
        return None
    if len(parts) > DEEPEST:
        refuse(archive, name, f"lies {len(parts)} folders deep, more than {DEEPEST}")
    if len(os.fsencode(name)) > LONGEST_NAME or any(len(os.fsencode(part)) > LONGEST_PART for part in parts):
        refuse(archive, name, f"has a name of more than {LONGEST_NAME} bytes, or {LONGEST_PART} between two slashes")
    return Path(*parts)

"""Members of zip and tar archives, judged by their headers before anything is written. Torch-free.

A header may lie about every size. So nothing is allocated by what it says, and what it says counts against a limit first.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn, cast

from advgen.errors import DataError
from advgen.limits import WAY_OUT, size_text

ZIP = (".zip",)
MOST_FILES = 2_000_000
LONGEST_NAME = 1024
LONGEST_PART = 255
DEEPEST = 64
BLOCK = 2**20
TAR_BLOCK = 2**16
SLACK_BYTES = 4096
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Members under other methods are unpacked by Python without a limit: forty bytes under bzip2 can be fifty megabytes."""
LARGEST_DIRECTORY = 512 * 2**20
LARGEST_HEADER = 2**20
XZ_MEMORY = 512 * 2**20
"""The xz command takes 65 MiB at its highest level."""
DEFLATE_TIMES = 1032
"""How many times deflate shrinks anything at most."""
ENCRYPTED = 0x1
LOCAL_HEADER_BYTES = 30
JUNK = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")
EXTENDED = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)

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


# Zip archives


class _Directory(io.BufferedReader):
    """A zip file. While it is opened, the list of its members is refused before it is turned into records."""

    def __init__(self, archive: Path) -> None:
        super().__init__(io.FileIO(archive))
        self.archive, self.is_opening = archive, True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file does."""
        if self.is_opening and size is not None and size > LARGEST_DIRECTORY:
            refuse_many(self.archive, size)
        content = super().read(size)
        if self.is_opening and len(content) > BLOCK:
            refuse_many(self.archive, content.count(b"PK\1\2"))
        return content


class _Zip(zipfile.ZipFile):
    """A zip archive that closes its file itself."""

    _source: _Directory | None = None

    def __init__(self, archive: Path) -> None:
        self._source = _Directory(archive)
        try:
            super().__init__(cast(IO[bytes], self._source))
        except BaseException:
            self._source.close()
            raise
        self._source.is_opening = False

    def close(self) -> None:
        """Close the archive; its ``__del__`` does so too."""
        super().close()
        if self._source is not None:
            self._source.close()


def open_zip(archive: Path) -> tuple[zipfile.ZipFile, dict[Path, zipfile.ZipInfo]]:
    """Open a zip archive, and return it with its files by their place.

    Raises:
        DataError: if it is damaged or encrypted, sizes in it cannot be true, or it holds anything but plain files.
        OSError: if the system refuses.
    """
    try:
        whole = _Zip(archive)
        infos = whole.infolist()
        _refuse_overlap(whole, infos, archive)
    except DAMAGE as error:
        raise damaged(archive, error) from error
    placed: dict[Path, zipfile.ZipInfo] = {}
    for info in infos:
        if (info.external_attr >> 16) & 0o170000 == 0o120000:
            refuse(archive, info.filename, "is a link")
        if info.is_dir() or (place := safe_place(info.filename, archive)) is None:
            continue
        _refuse_lie(info, archive)
        if place in placed:
            refuse(archive, info.filename, "comes twice")
        placed[place] = info
    if not placed:
        raise DataError(f"{archive} holds no files; expected an archive of samples")
    return whole, placed


def _refuse_overlap(whole: zipfile.ZipFile, infos: Iterable[zipfile.ZipInfo], archive: Path) -> None:
    """Refuse members that share bytes, by which a small archive holds very many large ones."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    ends: list[int] = [*(info.header_offset for info in ordered[1:]), whole.start_dir]
    for info, end in zip(ordered, ends, strict=False):
        if info.header_offset < 0 or info.header_offset + LOCAL_HEADER_BYTES + info.compress_size > end:
            refuse(archive, info.filename, "overlaps another member or the end of the archive, as in a zip bomb")


def _refuse_lie(info: zipfile.ZipInfo, archive: Path) -> None:
    if info.flag_bits & ENCRYPTED:
        refuse(archive, info.filename, "is encrypted")
    if info.compress_type not in METHODS:
        refuse(archive, info.filename, f"is packed by method {info.compress_type}, expected deflate or none")
    own, packed = info.file_size, info.compress_size
    if info.compress_type == zipfile.ZIP_STORED and own != packed:
        refuse(archive, info.filename, f"says that it has {own} bytes and {packed} bytes")
    if info.compress_type == zipfile.ZIP_DEFLATED and own > DEFLATE_TIMES * packed + SLACK_BYTES:
        refuse(archive, info.filename, f"says that {packed} bytes unpack to {own}, which cannot be")


class _Stepwise(io.RawIOBase):
    """A member that is read in steps: asked for all of it at once, Python would unpack more than its header says."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be read from any place."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, from its start."""
        content = self._stream.read(min(len(buffer), BLOCK))
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._stream.tell()

    def close(self) -> None:
        """Close the member."""
        if not self.closed:
            self._stream.close()
        super().close()


def stepwise(stream: IO[bytes]) -> IO[bytes]:
    """Return a member's stream that takes memory for its bytes only."""
    return io.BufferedReader(_Stepwise(stream))


def zip_members(archive: Path, budget: Budget) -> Iterator[Member]:
    """Yield the files of a zip archive, each open while it is the current one.

    Raises:
        DataError: if all of them together are too large; others as for ``open_zip``.
    """
    whole, placed = open_zip(archive)
    with whole:
        budget.check(sum(info.file_size for info in placed.values()))
        for place, info in placed.items():
            with whole.open(info) as stream:
                yield Member(info.filename, place, info.file_size, stream)


# Tar archives


class _Unfit(Exception):
    """A member that is refused, and why."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(name, what)
        self.name, self.what = name, what


class _Header(tarfile.TarInfo):
    """A header that reads no large extension, and no map of holes: by these, a few bytes unpack to any number."""

    def _proc_member(self, tar: _Tar) -> tarfile.TarInfo:
        if self.type in EXTENDED:
            tar.global_bytes += self.size if self.type == tarfile.XGLTYPE else 0
            if not 0 <= max(self.size, tar.global_bytes) <= LARGEST_HEADER or self.size < 0:
                raise tarfile.ReadError(f"a header of {self.size} bytes")
        if self.type == tarfile.GNUTYPE_SPARSE:
            self._is_sparse()
        found: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]  # made to be overridden, and not declared
        return found

    def _is_sparse(self, *_: object) -> NoReturn:
        raise _Unfit(self.name, "is a sparse file")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _is_sparse


class _Tar(tarfile.TarFile):
    """A tar archive that is read once from its start.

    Args:
        global_bytes: of the headers that hold for all members, which stay in memory.
    """

    tarinfo = _Header
    global_bytes = 0


class _Xz(io.RawIOBase):
    """What an xz or lzma file holds. Its own header says how much memory unpacking takes, so that has a limit."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._decoder = file, lzma.LZMADecompressor(memlimit=XZ_MEMORY)

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, from its start."""
        while not (found := self._some(len(buffer))):
            if self._decoder.eof:
                rest = (self._decoder.unused_data or self._file.read(BLOCK)).lstrip(b"\0")
                if not rest:
                    return 0
                self._decoder = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
                if found := self._decoder.decompress(rest, len(buffer)):
                    break
        buffer[: len(found)] = found
        return len(found)

    def _some(self, size: int) -> bytes:
        if self._decoder.eof:
            return b""
        block = self._file.read(BLOCK) if self._decoder.needs_input else b""
        if self._decoder.needs_input and not block:
            raise EOFError("the compressed file ends before its end mark")
        return self._decoder.decompress(block, size)


class _Counted:
    """An unpacked stream that ends with a refusal where it is above a budget."""

    def __init__(self, stream: IO[bytes], budget: Budget) -> None:
        self._stream, self._budget, self._num_bytes = stream, budget, 0

    def read(self, size: int) -> bytes:
        """Read at most so many bytes."""
        try:
            content = self._stream.read(size)
        except OSError as error:
            if error.errno is None:  # so gzip and bz2 say that the content is wrong
                raise tarfile.ReadError(str(error)) from error
            raise
        self._num_bytes += len(content)
        self._budget.check(self._num_bytes)
        return content


def tar_members(archive: Path, budget: Budget) -> Iterator[Member]:
    """Yield the files of a tar archive, each open while it is the current one.

    Raises:
        DataError: if it is too large, or holds anything but plain files and folders.
    """
    num_seen = num_bytes = 0
    with archive.open("rb") as file:
        stream = cast(IO[bytes], _Counted(_unpacking(file), budget))
        try:
            with _Tar.open(fileobj=stream, mode="r|", bufsize=TAR_BLOCK) as whole:
                while (info := whole.next()) is not None:
                    whole.members = []  # type: ignore[attr-defined]  # else every header stays in memory
                    num_seen += 1
                    refuse_many(archive, num_seen)
                    if info.issparse():
                        raise _Unfit(info.name, "is a sparse file")
                    if not (info.isfile() or info.isdir()):
                        raise _Unfit(info.name, "is a link or device")
                    if info.isdir() or (place := safe_place(info.name, archive)) is None:
                        continue
                    if info.size < 0:
                        raise tarfile.ReadError(f"a member of {info.size} bytes")
                    num_bytes += info.size
                    budget.check(num_bytes)
                    with cast(IO[bytes], whole.extractfile(info)) as content:
                        yield Member(info.name, place, info.size, content)
        except _Unfit as error:
            refuse(archive, error.name, error.what)


def _unpacking(file: IO[bytes]) -> IO[bytes]:
    """Return what a compressed file holds, by its first bytes, whatever it is called."""
    start = cast(io.BufferedReader, file).peek(6)[:6]
    if start.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if start.startswith(b"BZh"):
        return cast(IO[bytes], bz2.BZ2File(file))
    if start.startswith((b"\xfd7zXZ\0", b"]\0\0\x80", b"]\0\0\0")):
        return cast(IO[bytes], _Xz(file))
    return file

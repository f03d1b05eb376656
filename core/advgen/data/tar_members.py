"""Tar archives, read once from their start under a limit, whatever they are compressed with. Torch-free."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from advgen.data.members import BLOCK, Budget, Member, refuse, refuse_many, safe_place

TAR_BLOCK = 2**16
LARGEST_HEADER = 2**20
XZ_MEMORY = 512 * 2**20
"""The xz command takes 65 MiB at its highest level."""
EXTENDED = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


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

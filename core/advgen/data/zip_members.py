"""Zip archives, whose list of members and sizes are judged when they are opened. Torch-free."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from advgen.data.members import BLOCK, DAMAGE, Budget, Member, damaged, refuse, refuse_many, safe_place
from advgen.errors import DataError

SLACK_BYTES = 4096
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Members under other methods are unpacked by Python without a limit: forty bytes under bzip2 can be fifty megabytes."""
LARGEST_DIRECTORY = 512 * 2**20
DEFLATE_TIMES = 1032
"""How many times deflate shrinks anything at most."""
ENCRYPTED = 0x1
LOCAL_HEADER_BYTES = 30


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

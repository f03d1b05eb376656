"""Writing files so that every system takes them: whole or not at all, under names that are valid everywhere. Torch-free."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import logging
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

PATIENCE_SECONDS, PAUSE_SECONDS = 1.0, 0.05
LONGEST_NAME = 120
"""Bytes of a name; common file systems take 255, and prefixes and suffixes need some."""
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³")}
"""Names that Windows keeps for devices, whatever follows after a dot."""


def replace_file(draft: Path, target: Path) -> None:
    """Rename a file or folder to its place, over a file that is there.

    Windows refuses this while any process has one of them open, if only to read or to scan it. So a refusal is tried again for
    a second.

    Raises:
        OSError: if the system refuses to the end.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            os.replace(draft, target)
            return
        except PermissionError:
            if time.monotonic() >= until:
                raise
            time.sleep(PAUSE_SECONDS)


@contextlib.contextmanager
def drafted(target: Path) -> Iterator[Path]:
    """Write a file whole or not at all: yield a draft's path next to it, which takes its place at the end of the block.

    The draft has a name that nobody else uses, its bytes are on the disk before it is renamed, and so is the new name after.
    A link in the target's place is replaced, not followed.

    Raises:
        OSError: if the system refuses; the draft is removed, and what was there stays.
    """
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:60]}.", suffix=".draft")
    os.close(descriptor)
    draft = Path(name)
    try:
        yield draft
        with contextlib.suppress(OSError):  # some file systems know no permissions
            draft.chmod(_new_file_mode())
        sync_file(draft)
        replace_file(draft, target)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def write_file(target: Path, content: bytes | str) -> None:
    """Write a file whole or not at all, durably, and without following links; text is UTF-8 with its newlines as they are.

    Raises:
        OSError: if the system refuses; what was there stays.
    """
    with drafted(target) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


def append_text(target: Path, text: str) -> None:
    """Add text to the end of a file, which is made if it is missing. A link in its place is refused.

    Raises:
        OSError: if the system refuses, or the file is a link.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    if target.is_symlink():
        raise OSError(errno.ELOOP, "it is a link, which is not followed", str(target))
    with open(os.open(target, flags, 0o666), "ab") as stream:
        stream.write(text.encode())


def file_sha256(file: Path) -> str:
    """Compute the sha256 of a file's bytes, as a hexadecimal text.

    Raises:
        OSError: if it cannot be read.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync_file(file: Path) -> None:
    """Make a file's bytes safe from a power cut."""
    with file.open("rb+") as stream:  # Windows syncs no file that is open for reading only
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder safe from a power cut, on systems that can open a folder: Windows cannot."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_below(path: Path, folder: Path) -> bool:
    """Tell whether a path, with every link followed, lies below a folder."""
    return path.resolve().is_relative_to(folder.resolve())


def strange_entries(folder: Path) -> Iterator[tuple[Path, str]]:
    """Find what a folder that is written to must not hold: links that leave it, and entries that are no files or folders.

    Yields:
        Each such entry, and what it is.
    """
    for root, folders, files in os.walk(folder):  # which follows no links
        for entry in (Path(root, name) for name in (*folders, *files)):
            kind = entry.lstat().st_mode
            if stat.S_ISLNK(kind):
                if not is_below(entry, folder):
                    yield entry, "is a link that leaves the folder"
            elif not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                yield entry, "is neither a file nor a folder"


def keep_file(file: Path, content: bytes, what: str) -> None:
    """Write a file of the cache, whole or not at all. If the cache is not writable, warn and go on without it.

    Args:
        what: names the content in the warning, in the plural.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, content)
    except OSError as error:
        if not file.is_file():  # else another process has kept the same
            logging.getLogger("advgen").warning("%s are not kept in %s: %s", what, file.parent, error.strerror or error)


@functools.cache
def _new_file_mode() -> int:
    """Return the permissions of a new file under the user's mask; drafts are made for their owner only."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def suits_windows(name: str) -> bool:
    """Whether Windows takes a name of a file or folder as it is: ``aux.png`` is a device there, ``a:b`` a part of ``a``."""
    return not re.search(r'[<>:"/\\|?*\x00-\x1f]|[. ]$', name) and name.partition(".")[0].rstrip().lower() not in DEVICES


def file_name(text: str) -> str:
    """Turn a text, such as a class, into a name of a file or folder that Linux, macOS and Windows take.

    Characters that Windows reserves, and dots and spaces at an end, become underscores. A device's name gets an underscore in
    front, a long one is cut, and any other stays as it is.
    """
    name = re.sub(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]', "_", text).encode()[:LONGEST_NAME].decode(errors="ignore")
    name = re.sub(r"^[. ]+|[. ]+$", lambda dots: "_" * len(dots[0]), name) or "_"
    return name if suits_windows(name) else f"_{name}"


def sorted_paths(paths: Iterable[Path]) -> list[Path]:
    """Sort paths folder by folder, capitals first, on every system: Windows's own order ignores case."""
    return sorted(paths, key=lambda path: path.parts)


def user_path(path: Path | str) -> Path:
    """Return the path with ``~`` as the user's home folder. If no home is known, the path stays as it is."""
    return Path(os.path.expanduser(path))

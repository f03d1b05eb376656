"""Portable file writes: atomic, and under names that are valid on every system. Torch-free."""

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
"""Largest name in bytes. Common file systems allow 255, and prefixes and suffixes need some of them."""
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³")}
"""Names that Windows reserves for devices, with any extension."""


def replace_file(draft: Path, target: Path) -> None:
    """Rename a file or folder, replacing a file at the target.

    Windows refuses this while any process has one of them open, even only to read or scan it. So the rename is retried for a
    second.

    Raises:
        OSError: if the system still refuses after that.
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
    """Write a file whole or not at all: yield the path of a draft next to it, which replaces it at the end of the block.

    The draft has a unique name. Its bytes are synced to disk before the rename, and the new name is synced after it. A link at
    the target is replaced, not followed.

    Raises:
        OSError: if the system refuses; the draft is removed, and the target is unchanged.
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
    """Write a file whole or not at all, durably, without following links. Text is written as UTF-8, newlines unchanged.

    Raises:
        OSError: if the system refuses; the target is unchanged.
    """
    with drafted(target) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


def append_text(target: Path, text: str) -> None:
    """Append text to a file, creating it if it is missing. A link in its place is refused.

    Raises:
        OSError: if the system refuses, or the file is a link.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    if target.is_symlink():
        raise OSError(errno.ELOOP, "it is a link, which is not followed", str(target))
    with open(os.open(target, flags, 0o666), "ab") as stream:
        stream.write(text.encode())


def file_sha256(file: Path) -> str:
    """Return the sha256 of a file's bytes in hexadecimal.

    Raises:
        OSError: if it cannot be read.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync_file(file: Path) -> None:
    """Sync a file's bytes to disk, so that they survive a power cut."""
    with file.open("rb+") as stream:  # Windows syncs no file that is open for reading only
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk, so that they survive a power cut. Windows cannot open a folder, so it is skipped."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_below(path: Path, folder: Path) -> bool:
    """Return whether a path, after following every link, is below a folder."""
    return path.resolve().is_relative_to(folder.resolve())


def strange_entries(folder: Path) -> Iterator[tuple[Path, str]]:
    """Find entries that an output folder must not hold: links that leave it, and special files such as pipes.

    Yields:
        Each such entry, and a description of it.
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
    """Write a file of the cache, whole or not at all. If the cache is not writable, only warn.

    Args:
        what: name of the content in the warning, in the plural.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, content)
    except OSError as error:
        if not file.is_file():  # otherwise another process has written the same content
            logging.getLogger("advgen").warning("%s are not kept in %s: %s", what, file.parent, error.strerror or error)


@functools.cache
def _new_file_mode() -> int:
    """Return the permissions of a new file under the user's umask; drafts are created for their owner only."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def suits_windows(name: str) -> bool:
    """Return whether Windows allows a file name as it is: ``aux.png`` is a device there, ``a:b`` a stream of ``a``."""
    return not re.search(r'[<>:"/\\|?*\x00-\x1f]|[. ]$', name) and name.partition(".")[0].rstrip().lower() not in DEVICES


def file_name(text: str) -> str:
    """Turn a text, such as a class, into a file name that is valid on Linux, macOS and Windows.

    Characters that Windows reserves, and dots and spaces at either end, become underscores. A device's name gets an
    underscore in front, a long name is cut, and any other name is unchanged.
    """
    name = re.sub(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]', "_", text).encode()[:LONGEST_NAME].decode(errors="ignore")
    name = re.sub(r"^[. ]+|[. ]+$", lambda dots: "_" * len(dots[0]), name) or "_"
    return name if suits_windows(name) else f"_{name}"


def sorted_paths(paths: Iterable[Path]) -> list[Path]:
    """Sort paths folder by folder, capitals first, on every system; the native order on Windows ignores case."""
    return sorted(paths, key=lambda path: path.parts)


def user_path(path: Path | str) -> Path:
    """Expand ``~`` in a path to the user's home folder. If no home is known, return the path unchanged."""
    return Path(os.path.expanduser(path))

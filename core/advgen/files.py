"""Writing files so that every system takes them: whole or not at all, under names that are valid everywhere. Torch-free."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterable
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


def keep_file(file: Path, content: bytes, what: str) -> None:
    """Write a file of the cache, whole or not at all. If the cache is not writable, warn and go on without it.

    Args:
        what: names the content in the warning, in the plural.
    """
    draft: Path | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as stream:
            draft = Path(stream.name)
            stream.write(content)
        replace_file(draft, file)
    except OSError as error:
        if draft is not None:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
        if not file.is_file():  # else another process has kept the same
            logging.getLogger("advgen").warning("%s are not kept in %s: %s", what, file.parent, error.strerror or error)


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

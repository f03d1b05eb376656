"""The user's cache: judges, decoded data and unpacked archives, each under a hash of its content."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from advgen.errors import ConfigError
from advgen.files import user_path


def cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/advgen`` on every system, or without that variable the system's usual place for caches.

    That is ``~/.cache/advgen`` on Linux, ``~/Library/Caches/advgen`` on macOS, ``%LOCALAPPDATA%/advgen/Cache`` on Windows.

    Raises:
        ConfigError: if there is no such place, as no home folder is known.
    """
    chosen = os.environ.get("XDG_CACHE_HOME")
    folder = user_path(chosen) / "advgen" if chosen else _usual_place()
    if folder is None or folder.parts[0].startswith("~"):
        raise ConfigError(
            "no home folder is known here, so there is no place for the cache; set XDG_CACHE_HOME to a folder of your own"
        )
    return folder


def _usual_place() -> Path | None:
    """Return the system's place for caches. If no home is known, the library leaves the ``~`` or, newer ones, refuses."""
    try:
        return Path(platformdirs.user_cache_dir("advgen", appauthor=False))
    except RuntimeError:
        return None

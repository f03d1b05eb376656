"""The user's cache: judges, decoded data and unpacked archives, each under a hash of its content."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from advgen.errors import ConfigError
from advgen.files import user_path


def cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/advgen`` on every system; if that variable is not set, the system's usual cache folder.

    The usual folder is ``~/.cache/advgen`` on Linux, ``~/Library/Caches/advgen`` on macOS and
    ``%LOCALAPPDATA%/advgen/Cache`` on Windows.

    Raises:
        ConfigError: if no home folder is known.
    """
    chosen = os.environ.get("XDG_CACHE_HOME")
    folder = user_path(chosen) / "advgen" if chosen else _usual_place()
    if folder is None or folder.parts[0].startswith("~"):
        raise ConfigError(
            "no home folder is known, so there is no place for the cache; set XDG_CACHE_HOME to a folder that you can write to"
        )
    return folder


def _usual_place() -> Path | None:
    """Return the system's cache folder. If no home is known, old versions of the library keep the ``~`` and new ones raise."""
    try:
        return Path(platformdirs.user_cache_dir("advgen", appauthor=False))
    except RuntimeError:
        return None

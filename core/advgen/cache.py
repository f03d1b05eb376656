"""The user's cache: judges, decoded data and unpacked archives, each under a hash of its content."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/advgen``, otherwise ``~/.cache/advgen``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "advgen"

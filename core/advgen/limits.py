"""Limits for files that say their own size: archives, compressed arrays, images and sound. Torch-free."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

from advgen.errors import ConfigError

VARIABLE = "ADVGEN_MAX_UNPACKED_GIB"
"""Names the user's own limit, which replaces all that follows."""
GIBIBYTE = 2**30
SMALLEST_LIMIT = GIBIBYTE
LARGEST_LIMIT = 32 * GIBIBYTE
ANY = 2**63 - 1
"""A largest limit for data that may be as large as the disk."""
MOST_TIMES = 200
"""Text shrinks 20 times under xz, MNIST 5 times, and images of few colors up to some hundred times."""
LARGEST_SHARE = 0.95
"""Of the free disk that one data set may take."""
WAY_OUT = f"set {VARIABLE} to a larger number of GiB if you trust the data"


def most_unpacked(
    num_bytes: int, times: int = MOST_TIMES, *, smallest: int = SMALLEST_LIMIT, largest: int = LARGEST_LIMIT
) -> int:
    """Return how many bytes so many bytes of files may unpack to.

    That is ``times`` as many, but always ``smallest`` and never above ``largest``. The variable ``ADVGEN_MAX_UNPACKED_GIB``
    sets another limit for all files.

    Raises:
        ConfigError: if the variable is not a number above 0.
    """
    chosen = os.environ.get(VARIABLE, "").strip()
    if not chosen:
        return min(largest, max(smallest, times * num_bytes))
    try:
        gibibytes = float(chosen)
    except ValueError:
        gibibytes = math.nan
    if not 0 < gibibytes < math.inf:
        raise ConfigError(f"{VARIABLE}={chosen!r}: expected a number of GiB above 0, such as 64")
    return max(1, int(gibibytes * GIBIBYTE))


def free_bytes(folder: Path) -> int:
    """Return how many bytes one data set may take on the disk of a folder, which may not exist yet.

    If the system does not tell, there is no limit: a full disk is a refusal too, only later.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return int(shutil.disk_usage(folder).free * LARGEST_SHARE)
    except (OSError, AttributeError):
        return ANY


def size_text(num_bytes: int) -> str:
    """Write a number of bytes for messages: ``1.5 GiB``, ``20 MiB``, ``300 bytes``."""
    for unit, name in ((GIBIBYTE, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.4g} {name}"
    return f"{num_bytes} bytes"

"""Lists of seeds as they are written on the command line."""

from __future__ import annotations

import re

from advgen.errors import ConfigError

MOST_SEEDS = 100_000


def parse_seeds(text: str, option: str = "--seeds") -> tuple[int, ...]:
    """``0-63,70`` as numbers, in the order given, each once.

    Raises:
        ConfigError: naming the part that is no seed and no range.
    """
    found: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})(?:-(\d{1,18}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if last < first:
            raise ConfigError(f"{option} {text}: {part.strip() or 'an empty part'!r} is no seed or range; expected 0-63,70")
        if len(found) + last - first >= MOST_SEEDS:
            raise ConfigError(f"{option} {text}: more than {MOST_SEEDS:,} seeds; ask for fewer at a time, or for -n N of one")
        found |= dict.fromkeys(range(first, last + 1))
    return tuple(found)

"""``python cli.py ...`` is ``gen ...``, also from a checkout that is not installed."""

import sys
from pathlib import Path

try:
    import advgen  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "advgen":
        raise
    sys.path[:0] = [str(Path(__file__).parent / folder) for folder in ("core", "plugins")]

from advgen.cli import command

if __name__ == "__main__":
    command()

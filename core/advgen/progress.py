"""Progress on standard error: a bar on a terminal, a plain line every so often elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from advgen.terminal import tell, visible

PLAIN_EVERY_SECONDS = 15.0
COUNT_EVERY = 16


class Progress:
    """Shows how far a run is. Silent when not wanted."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.started = time.monotonic()
        self.printed = -1e9
        self.bar: Any = None
        self.first: tuple[float, float] | None = None
        if wanted and sys.stderr.isatty():
            self._open_bar()

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        text = TextColumn("{task.percentage:>3.0f}% {task.description}", markup=False)
        columns = (BarColumn(), text, TimeElapsedColumn(), TimeRemainingColumn())
        self.bar = Bar(*columns, console=Console(stderr=True))
        self.task = self.bar.add_task("starting", total=1.0)
        self.bar.start()

    def say(self, text: str) -> None:
        """One line that stays."""
        if self.wanted:
            if self.bar is not None:
                self.bar.console.print(visible(text), highlight=False, markup=False, emoji=False)
            else:
                tell(text)

    def update(self, step: int, share: float, row: Mapping[str, float]) -> None:
        """Show the newest figures."""
        text = f"step {step}" + "".join(f"  {column} {row[name]:.3f}" for name, column in _COLUMNS.items() if name in row)
        text += f"  {row['samples_per_second']:.0f} samples/s" if "samples_per_second" in row else ""
        if self.bar is not None:
            self.bar.update(self.task, completed=share, description=text)
        elif self.wanted and time.monotonic() - self.printed >= PLAIN_EVERY_SECONDS:
            self.printed = time.monotonic()
            print(f"{share:4.0%} {text}{self._left(share)}", file=sys.stderr, flush=True)

    def _left(self, share: float) -> str:
        """How long it will be, by the pace since the first figures: what came before them was no training."""
        now = time.monotonic()
        self.first = self.first or (now, share)
        since, begun = self.first
        return f"  {(now - since) * (1 - share) / (share - begun) / 60:.1f} min left" if share > begun else ""

    def count(self, done: int, total: int | None) -> None:
        """Show how many samples of a data set were looked at."""
        if not self.wanted or (done % COUNT_EVERY and done != total):
            return
        if self.bar is not None:
            self.bar.update(self.task, total=total, completed=done, description=f"{done:,} looked at")
        elif time.monotonic() - max(self.printed, self.started) >= PLAIN_EVERY_SECONDS:
            self.printed = time.monotonic()
            print(f"{done:,}{f' of {total:,}' if total else ''} looked at", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


_COLUMNS = {"generator/loss": "G loss", "discriminator/loss": "D loss", "generator/likelihood": "G NLL"}

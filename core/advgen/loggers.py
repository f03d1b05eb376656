"""Where figures go besides metrics.jsonl: TensorBoard when installed, and loggers that plugins bring."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from advgen.optional_imports import try_import


class Logger(Protocol):
    """What a plugin's logger offers; it is built with the run folder's path."""

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """Take the figures of one log step."""

    def close(self) -> None:
        """Flush."""


class Loggers:
    """Several loggers as one."""

    def __init__(self, loggers: list[Logger]) -> None:
        self.loggers = loggers

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """Pass a row to each."""
        for logger in self.loggers:
            logger.log(step, row)

    def close(self) -> None:
        """Close each."""
        for logger in self.loggers:
            logger.close()


class TensorBoardLogger:
    """Event files in ``<run>/events``."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder / "events"))

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """One scalar per figure."""
        for name, value in row.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        self.writer.close()


def open_loggers(folder: Path, plugin_loggers: list[Any], warn: Callable[[str], None]) -> Loggers:
    """Open TensorBoard if it is installed, and the plugin's own loggers.

    A TensorBoard that does not load costs its event files, not the run: ``warn`` is told, ``metrics.jsonl`` has the figures.
    """
    found: list[Logger] = []
    if importlib.util.find_spec("tensorboard"):
        attempt = try_import("torch.utils.tensorboard")
        if attempt:
            found.append(TensorBoardLogger(folder))
        else:
            warn(f"tensorboard {attempt.problem}: no events/ are written")
    return Loggers([*found, *(make(folder) for make in plugin_loggers)])

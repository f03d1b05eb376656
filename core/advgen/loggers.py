"""Where figures go besides metrics.jsonl: TensorBoard when installed, and loggers that plugins bring."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from advgen.border import object_fault, refusal, require_callable
from advgen.optional_imports import try_import
from advgen.registry import PluginRecord, resolve
from advgen.terminal import visible


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
            self.writer.add_scalar(visible(name), value, step)

    def close(self) -> None:
        """Flush and close."""
        self.writer.close()


class MakeLogger(Protocol):
    """A plugin's logger class, or a function that makes a logger."""

    def __call__(self, folder: Path) -> Logger: ...


def loggers_of(record: PluginRecord) -> list[MakeLogger]:
    """Find a plugin's own loggers.

    Raises:
        PluginError: for one that is not found, or cannot be made with only a folder.
    """
    targets = record.spec.loggers if record.spec is not None else {}
    found = {name: resolve(target) for name, target in targets.items()}
    for name, make in found.items():
        require_callable(make, MakeLogger.__call__, f"plugin {record.name!r}: logger {name!r}")
    return list(found.values())


def open_loggers(folder: Path, plugin_loggers: list[MakeLogger], warn: Callable[[str], None]) -> Loggers:
    """Open TensorBoard's logger if it is installed, then the plugin's own.

    If TensorBoard does not load, ``warn`` is called and no event files are written; ``metrics.jsonl`` still has the figures.

    Raises:
        ContractError: for a plugin's logger that lacks a method.
    """
    found: list[Logger] = []
    if importlib.util.find_spec("tensorboard"):
        attempt = try_import("torch.utils.tensorboard")
        if attempt:
            found.append(TensorBoardLogger(folder))
        else:
            warn(f"tensorboard {attempt.problem}: events/ is not written")
    return Loggers([*found, *(_opened(make, folder) for make in plugin_loggers)])


def _opened(make: MakeLogger, folder: Path) -> Logger:
    logger = make(folder)
    if fault := object_fault(logger, Logger):
        raise refusal(make, f"made {fault}")
    return logger


def try_loggers(record: PluginRecord, folder: Path, row: Mapping[str, float]) -> None:
    """Open a plugin's own loggers, log a row, and close them; for tests of the plugin."""
    loggers = Loggers([_opened(make, folder) for make in loggers_of(record)])
    loggers.log(0, row)
    loggers.close()

"""Errors a user can act on, each with its exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GenError(Exception):
    """A refusal: who, what came, what was expected, what to do. Never a bug."""

    exit_code = 1


class ConfigError(GenError):
    """Usage or configuration."""

    exit_code = 2


class PluginError(GenError):
    """A plugin is missing, broken, in conflict or incompatible."""

    exit_code = 3


class DataError(GenError):
    """Data cannot be read or does not fit."""

    exit_code = 4


class CheckpointError(GenError):
    """A run or checkpoint is missing, damaged, or belongs to something else."""

    exit_code = 5


class DivergedError(GenError):
    """Training met a loss or gradient that is not finite."""

    exit_code = 6


class ContractError(PluginError):
    """A plugin's network or modality broke the core's contract."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which names are known and which is closest, for the end of an error message."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(names) or 'none'}"

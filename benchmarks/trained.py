"""Runs that a benchmark needs: trained where they are not there, gone on with where they were cut off."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import advgen
from advgen.sampling import LoadedRun

PLUGINS = Path(__file__).resolve().parent / "plugins"


def trained(plugin: str, folder: Path, device: str = "auto", **plan: Any) -> LoadedRun:
    """The generator of a run in ``folder``, with the plugin file of that name or else the installed plugin.

    A run that is there keeps its own plan.
    """
    file = PLUGINS / f"{plugin}.py"
    if (folder / "run.json").is_file():
        advgen.resume(folder, device=device, plugin=own_plugin(folder))
    else:
        advgen.train(str(file) if file.is_file() else plugin, out=folder, device=device, **plan)
    return opened(folder, device)


def opened(folder: Path, device: str = "auto") -> LoadedRun:
    """A run's generator as it is."""
    return advgen.load_generator(folder, device, own_plugin(folder))


def own_plugin(folder: Path) -> str | None:
    """The copy of the plugin's file that a run was made with, where it was made with one."""
    copies = sorted((folder / "plugin").glob("*.py"))
    return str(copies[0]) if copies else None


def figures(folder: Path, name: str) -> list[float]:
    """Every logged value of a figure, in order."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]


def mean_and_error(values: list[float], digits: int) -> str:
    """mean±standard error; the value alone where there is one."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f}±{statistics.stdev(values) / math.sqrt(len(values)):.{digits}f}"

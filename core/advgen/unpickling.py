"""Tensors out of a torch pickle, for importers: a process of its own reads it and runs no code from it.

Never on the path that loads runs; those are safetensors.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save_file
from torch import Tensor

from advgen.errors import DataError

LIMIT_SECONDS = 600
LARGEST = 2**63


def read_pickled(path: Path, *, numbers: bool = False) -> dict[str, Tensor]:
    """The tensors of a ``torch.save`` file by place: ``generator/conv_pre.bias``; with ``numbers`` also these, as tensors
    of no dimension (int64 or float64). What is neither is left out.

    Raises:
        DataError: where the file is no such pickle, holds code, or holds no tensor.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "tensors.safetensors"
        paths = os.pathsep.join(entry for entry in sys.path if entry)
        command = [sys.executable, "-P", "-m", "advgen.unpickling", str(path.absolute()), str(target)]
        command += ["numbers"] if numbers else []
        environment = {**os.environ, "PYTHONPATH": paths}
        try:
            ended = subprocess.run(
                command, env=environment, capture_output=True, encoding="utf-8", errors="replace", timeout=LIMIT_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise DataError(f"{path} was not read within {LIMIT_SECONDS} seconds and given up") from error
        if ended.returncode or not target.is_file():
            raise DataError(_refusal(path, ended.stdout, ended.stderr))
        return load(target.read_bytes())  # not mapped: the folder goes


def _refusal(path: Path, said: str, complained: str) -> str:
    try:
        found = json.loads(said)
    except ValueError:
        last = (complained.strip().splitlines() or ["no message"])[-1]
        return f"{path} could not be read: the process that reads it ended early ({last[:200]})"
    if found["code"]:
        return f"{path} holds code ({found['code']}), not tensors alone; it was not run. Ask its author for the weights alone"
    return f"{path} is not a checkpoint that torch can read ({found['reason']}); expected a file written by torch.save"


def _tensors(value: Any, numbers: bool, place: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor (and number) in nested tables and lists, with its place."""
    if isinstance(value, Tensor):
        yield place or "tensor", value
    elif numbers and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST:
        yield place or "number", torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _tensors(item, numbers, f"{place}/{name}" if place else str(name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _tensors(item, numbers, f"{place}/{index}" if place else str(index))


def _convert(source: str, target: str, numbers: str = "") -> dict[str, str] | None:
    """Write a pickle's tensors as safetensors; what was wrong, where something was."""
    try:
        found = dict(_tensors(torch.load(source, map_location="cpu", weights_only=True), bool(numbers)))
    except Exception as error:  # damaged files raise many kinds
        text = " ".join(str(error).split())
        code = re.search(r"(?:GLOBAL|global|function|object for) `?([\w.]+\.\w+)`?", text)
        # Torch's advice to load it without protection is not passed on.
        reason = text.split("WeightsUnpickler error:")[-1].split("Check the documentation")[0].strip()
        return {"code": code[1] if code else "", "reason": reason[:200] or type(error).__name__}
    if not found:
        return {"code": "", "reason": "it holds no tensor"}
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in found.items()}, target)
    return None


if __name__ == "__main__":
    if (problem := _convert(*sys.argv[1:4])) is not None:
        print(json.dumps(problem))
        sys.exit(1)

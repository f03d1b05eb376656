"""Tensors out of a torch pickle, for importers: a process of its own reads it, with limits, and runs no code from it.

Never on the path that loads runs; those are safetensors.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from advgen.errors import DataError
from advgen.reading import told
from advgen.tensor_files import read_tensors

LIMIT_SECONDS = 600
LARGEST = 2**63
MOST_TIMES = 4
"""How many times the bytes of the file its tensors may have: one that several places share is written for each."""
SPARE_BYTES = 64 * 2**20
WORKING_BYTES = 512 * 2**20
"""Memory of the reading process besides tensors."""
MOST_PLACES = 1_000_000
"""Entries of tables and lists that are looked at."""
DEEPEST = 64


class _Refused(Exception):
    """The reason why a file that torch can read is not taken."""


def read_pickled(path: Path, *, numbers: bool = False) -> dict[str, Tensor]:
    """The tensors of a ``torch.save`` file by place: ``generator/conv_pre.bias``; with ``numbers`` also these, as tensors
    of no dimension (int64 or float64). What is neither is left out.

    Memory and disk are bounded by a few times the size of the file.

    Raises:
        DataError: where the file is no such pickle, holds code, holds no tensor, or unfolds to far more than its size.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "tensors.safetensors"
        paths = os.pathsep.join(entry for entry in sys.path if entry)
        command = [sys.executable, "-P", "-m", "advgen.unpickling", str(path.absolute()), str(target)]
        command += ["numbers"] if numbers else []
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        try:
            ended = subprocess.run(
                command, env=environment, capture_output=True, encoding="utf-8", errors="replace", timeout=LIMIT_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise DataError(f"{path} was not read within {LIMIT_SECONDS} seconds and given up") from error
        if ended.returncode or not target.is_file():
            raise DataError(_refusal(path, ended.stdout, ended.stderr))
        try:
            return read_tensors(target)[0]
        except (OSError, ValueError) as error:
            raise DataError(f"{path} could not be read ({error})") from error


def _refusal(path: Path, said: str, complained: str) -> str:
    try:
        found = json.loads(said)
    except ValueError:
        last = (complained.strip().splitlines() or ["no message"])[-1]
        return f"{path} could not be read: the process that reads it ended early ({told(last[:200])})"
    if found["code"]:
        return f"{path} holds code ({found['code']}), not tensors alone; it was not run. Ask its author for the weights alone"
    if found["refused"]:
        return f"{path} is not read: {found['refused']}; ask its author for the weights alone"
    return f"{path} is not a checkpoint that torch can read ({found['reason']}); expected a file written by torch.save"


def _tensors(value: Any, numbers: bool) -> Iterator[tuple[str, Tensor]]:
    """Every tensor (and number) in nested tables and lists, with its place."""
    waiting, num_places = [(value, "", 0)], 0
    while waiting:
        value, place, depth = waiting.pop()
        num_places += 1
        if num_places > MOST_PLACES or depth > DEEPEST:
            what = f"more than {MOST_PLACES:,} entries" if num_places > MOST_PLACES else f"more than {DEEPEST} levels"
            raise _Refused(f"it unfolds to {what} of tables and lists")
        if isinstance(value, Tensor):
            yield place or "tensor", value
        elif numbers and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST:
            yield place or "number", torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)
        elif isinstance(value, dict | list | tuple):
            entries = value.items() if isinstance(value, dict) else enumerate(value)
            inside = [(item, f"{place}/{name}" if place else str(name), depth + 1) for name, item in entries]
            waiting += reversed(inside)


def _collected(value: Any, numbers: bool, most_bytes: int) -> dict[str, Tensor]:
    """Every tensor by place, refused before more is copied than the file accounts for."""
    found, num_bytes, named = dict[str, Tensor](), 0, 0
    for place, tensor in _tensors(value, numbers):
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise _Refused(f"{told(place)} is no plain tensor ({tensor.layout}, {tensor.device.type})")
        num_bytes += tensor.numel() * tensor.element_size()
        named += len(place)
        if num_bytes > most_bytes or named > most_bytes:
            raise _Refused(
                f"its tensors take more than {most_bytes:,} bytes ({told(place)} is {tuple(tensor.shape)}), the file less"
            )
        found[place] = tensor
    return found


def _require_plain_zip(source: Path, most_bytes: int) -> None:
    """Refuse an archive whose members unfold to far more than it has; torch compresses nothing."""
    if not zipfile.is_zipfile(source):
        return
    with zipfile.ZipFile(source) as archive:
        num_bytes = sum(member.file_size for member in archive.infolist())
    if num_bytes > most_bytes:
        raise _Refused(f"its members unfold to {num_bytes:,} bytes, and it has {source.stat().st_size:,}")


def _limit_resources(num_bytes: int) -> None:
    """Let the system end this process before it takes more memory or disk, if the system knows such limits."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = {resource.RLIMIT_FSIZE: num_bytes + SPARE_BYTES, resource.RLIMIT_CPU: LIMIT_SECONDS, resource.RLIMIT_CORE: 0}
    with contextlib.suppress(OSError, ValueError, IndexError):  # Linux alone says what is mapped already
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + WORKING_BYTES + 2 * num_bytes
    for kind, most in limits.items():
        with contextlib.suppress(OSError, ValueError):  # the user's own limit may be lower
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _convert(source: str, target: str, numbers: str = "") -> dict[str, str] | None:
    """Write a pickle's tensors as safetensors; what was wrong, where something was."""
    most_bytes = MOST_TIMES * Path(source).stat().st_size + SPARE_BYTES
    torch.set_num_threads(1)
    _limit_resources(most_bytes)
    try:
        _require_plain_zip(Path(source), most_bytes)
        found = _collected(torch.load(source, map_location="cpu", weights_only=True), bool(numbers), most_bytes)
        if not found:
            return {"code": "", "refused": "", "reason": "it holds no tensor"}
        save_file({name: tensor.detach().contiguous().clone() for name, tensor in found.items()}, target)
    except _Refused as error:
        return {"code": "", "refused": str(error), "reason": ""}
    except MemoryError:
        return {"code": "", "refused": "it takes far more memory than the size of the file accounts for", "reason": ""}
    except RecursionError:
        return {"code": "", "refused": f"it is nested more than {DEEPEST} levels deep", "reason": ""}
    except Exception as error:  # damaged files raise many kinds
        text = " ".join(str(error).split())
        if "can't allocate memory" in text:
            return {"code": "", "refused": "it takes far more memory than the size of the file accounts for", "reason": ""}
        code = re.search(r"GLOBAL `?([\w.]+)|(?:global|function|object for) `?([\w.]+\.\w+)", text)
        # Torch's advice to load it without protection is not passed on.
        reason = text.split("WeightsUnpickler error:")[-1].split("Check the documentation")[0].strip()
        said = told(reason[:200]) or type(error).__name__
        return {"code": (code[1] or code[2]) if code else "", "refused": "", "reason": said}
    return None


if __name__ == "__main__":
    if (problem := _convert(*sys.argv[1:4])) is not None:
        print(json.dumps(problem))
        sys.exit(1)

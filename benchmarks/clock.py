"""The clock of the benchmarks: on a CPU the processor's own, which other programs do not lengthen; on a GPU the wall's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

Found = TypeVar("Found")


def now(device: torch.device) -> float:
    """Seconds so far, once the device has done what it was given."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(work: Callable[[], Found], device: torch.device) -> tuple[float, Found]:
    """Seconds of one call, and what it found."""
    start = now(device)
    found = work()
    return now(device) - start, found

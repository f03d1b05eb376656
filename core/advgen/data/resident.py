"""Training data on the training device, where they fit: a step then waits for no copy from main memory."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from advgen.contracts import Source

MEBIBYTE = 2**20


@runtime_checkable
class Movable(Protocol):
    """A source that can hold its samples on a device; ``batch`` then returns tensors that are there, with equal values."""

    @property
    def num_bytes(self) -> int:
        """What its samples take there."""
        ...

    def to(self, device: torch.device) -> Source:
        """The same samples on the device; this source stays as it is."""
        ...


def keep_on_device(source: Source, device: torch.device, share: float) -> tuple[Source, tuple[str, ...]]:
    """The source on the device where it takes at most ``share`` of the memory that is free there, and a line that says so.

    Random crops and the like are drawn as before from the CPU's keyed generator, so ranks and devices agree on them.
    """
    free = free_bytes(device)
    if free is None or share == 0 or not isinstance(source, Movable):
        return source, ()
    needed = f"training data: {source.num_bytes / MEBIBYTE:.0f} MiB"
    if source.num_bytes > share * free:
        allowed = f"data.device_share={share:g} of {free / MEBIBYTE:.0f} MiB free"
        return source, (f"{needed} stay in main memory, as they are more than {allowed} on {device}",)
    return source.to(device), (f"{needed} are kept on {device}",)


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a device; None where data gain nothing there, or it does not tell."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None

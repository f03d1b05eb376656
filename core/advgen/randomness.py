"""Randomness by key: seed, stream, step and global sample index decide every draw, so nothing needs saving."""

from __future__ import annotations

import hashlib
import os
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def key(seed: int, *parts: str | int) -> int:
    """A 63-bit seed for one purpose."""
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def keyed_generator(seed: int, *parts: str | int) -> torch.Generator:
    """A CPU generator for one purpose."""
    return torch.Generator().manual_seed(key(seed, *parts))


def seed_networks(seed: int, *parts: str | int) -> None:
    """Seed the global random state that networks draw from; parts that name the rank make each draw its own."""
    number = key(seed, *parts)
    torch.default_generator.manual_seed(number)  # torch.manual_seed looks at every backend: 0.5 ms a call
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)


def repeat_exactly() -> None:
    """Let a GPU's kernels be those that repeat to the bit, from now on in this process; one that has none warns once.

    torch reads the variable when it first multiplies matrices on the GPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def untouched(device: torch.device) -> AbstractContextManager[Any]:
    """The global random state is after the block what it was before."""
    return torch.random.fork_rng(devices=[] if device.type == "cpu" else [device])


@lru_cache(maxsize=8)
def _order(seed: int, stream: str, epoch: int, length: int) -> Tensor:
    return torch.randperm(length, generator=keyed_generator(seed, "order", stream, epoch))


def sample_indices(seed: int, stream: str, first: int, count: int, length: int) -> Tensor:
    """Places ``first`` to ``first + count`` of an endless sequence of shuffled epochs, (count,) int64."""
    pieces, position, stop = [], first, first + count
    while position < stop:
        epoch, offset = divmod(position, length)
        take = min(stop - position, length - offset)
        pieces.append(_order(seed, stream, epoch, length)[offset : offset + take])
        position += take
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

"""Splits of images: rows of an array in memory, mapped from a file, or on the training device; mirrored and cropped there.

Legend: N images stored, B batch, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advgen import Batch, to_device

BLOCK = 1024


class Store(Protocol):
    """Images by row."""

    @property
    def num_bytes(self) -> int:
        """What they take in memory."""
        ...

    def take(self, rows: Tensor) -> Tensor:
        """(B, C, H, W), where the images are kept."""
        ...

    def to(self, device: torch.device) -> Store:
        """The same images on a device."""
        ...


@dataclass(frozen=True)
class ArrayStore:
    """Some rows of an array in memory or mapped from a file: nothing is copied but what is asked for."""

    array: NDArray[Any]
    rows: Tensor

    @property
    def num_bytes(self) -> int:
        """Of these rows."""
        return len(self.rows) * int(np.prod(self.array.shape[1:])) * self.array.dtype.itemsize

    def take(self, rows: Tensor) -> Tensor:
        """Read into memory."""
        return widened(self._packed(rows))

    def to(self, device: torch.device) -> TensorStore:
        """Read in blocks, so that main memory need not hold all of them twice."""
        kind = torch.uint8 if self.array.dtype == np.uint8 else torch.int16
        values = torch.empty((len(self.rows), *self.array.shape[1:]), dtype=kind, device=device)
        for start in range(0, len(self.rows), BLOCK):
            rows = torch.arange(start, min(start + BLOCK, len(self.rows)))
            values[start : start + BLOCK] = self._packed(rows)
        return TensorStore(values)

    def _packed(self, rows: Tensor) -> Tensor:
        taken = np.ascontiguousarray(self.array[self.rows[rows].numpy()])
        return torch.from_numpy(taken if taken.dtype == np.uint8 else taken.view(np.int16))


@dataclass(frozen=True)
class TensorStore:
    """Images (N, C, H, W) in memory or on a device: uint8, or the bits of 16-bit ones as int16."""

    values: Tensor

    @property
    def num_bytes(self) -> int:
        """Of the tensor."""
        return self.values.nbytes

    def take(self, rows: Tensor) -> Tensor:
        """Gathered on the device."""
        return widened(self.values[to_device(rows, self.values.device)])

    def to(self, device: torch.device) -> TensorStore:
        """Copied there."""
        return TensorStore(self.values.to(device))


def widened(packed: Tensor) -> Tensor:
    """uint8 stays; 16 bits held as int16 become int32 in [0, 65535], as few tensor operations know uint16."""
    return packed if packed.dtype == torch.uint8 else packed.int() & 0xFFFF


@dataclass(frozen=True)
class View:
    """How stored images become samples.

    Args:
        margin: how much higher and wider than a sample they are stored.
        flip: whether to mirror half of them.
        random: windows at random places, as in training; otherwise the middle, and no mirror.
    """

    margin: int = 0
    flip: bool = False
    random: bool = False


@dataclass(frozen=True)
class ImageSource:
    """One split, with labels (N,) where the data have classes."""

    store: Store
    labels: Tensor | None
    count: int
    view: View = View()

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Samples at ``indices``; mirrors and windows are drawn on the CPU by ``generator`` and applied where images are."""
        values = self.store.take(indices)
        condition = {} if self.labels is None else {"label": self.labels[to_device(indices, self.labels.device)]}
        return Batch(viewed(values, self.view, generator), condition=condition)

    @property
    def num_bytes(self) -> int:
        """Of images and labels."""
        return self.store.num_bytes + (0 if self.labels is None else self.labels.nbytes)

    def to(self, device: torch.device) -> ImageSource:
        """The same split on a device."""
        return ImageSource(
            self.store.to(device), None if self.labels is None else self.labels.to(device), self.count, self.view
        )


def viewed(values: Tensor, view: View, generator: torch.Generator) -> Tensor:
    """Stored images (B, C, H + margin, W + margin) as samples (B, C, H, W), all in three operations."""
    size = (values.shape[2] - view.margin, values.shape[3] - view.margin)
    if not view.random:
        middle = view.margin // 2
        return values[:, :, middle : middle + size[0], middle : middle + size[1]] if view.margin else values
    draws = torch.rand(len(values), 3, generator=generator)  # a row a sample: the first ones are the same whatever follows
    places = (draws[:, 1:] * (view.margin + 1)).long().to(values.device)
    rows = places[:, :1] + torch.arange(size[0], device=values.device)
    columns = places[:, 1:] + torch.arange(size[1], device=values.device)
    if view.flip:
        mirrored = (draws[:, :1] < 0.5).to(values.device)
        columns = torch.where(mirrored, columns.flip(1), columns)
    batch, channels = (torch.arange(num, device=values.device) for num in values.shape[:2])
    return values[batch[:, None, None, None], channels[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]

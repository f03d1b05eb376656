"""Splits by hash and the in-memory source that most plugins need."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from advgen.contracts import Batch, DataRequest
from advgen.errors import DataError
from advgen.transfer import to_device


def content_hash(parts: Iterable[bytes | memoryview]) -> str:
    """sha256 over several byte strings, each with its length, in order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def split_indices(keys: Sequence[str], request: DataRequest, named: Sequence[str | None] | None = None) -> dict[str, Tensor]:
    """Train, validation and test indices (int64), fixed by a hash of each sample's key: adding files moves no other.

    Args:
        named: the split of each sample that the data set itself names. A held-out split that no sample is named for is
            taken by hash from those that are named ``train`` or nothing.

    Raises:
        DataError: where a split would be empty, though its share is not 0.
    """
    points = [int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") / 2**64 for key in keys]
    edge = 1.0 - request.test_share
    names = ["train" if p < edge - request.validation_share else "validation" if p < edge else "test" for p in points]
    if named is not None:
        fixed = set(named) & {"validation", "test"}
        hashed = ["train" if name in fixed else name for name in names]
        names = [own if own is not None and own in fixed else other for own, other in zip(named, hashed, strict=True)]
    splits = {
        name: torch.tensor([i for i, own in enumerate(names) if own == name], dtype=torch.int64)
        for name in ("train", "validation", "test")
    }
    shares = {"train": 1.0, "validation": request.validation_share, "test": request.test_share}
    empty = [name for name, indices in splits.items() if shares[name] and not len(indices)]
    if empty:
        raise DataError(
            f"{len(keys)} {'sample leaves' if len(keys) == 1 else 'samples leave'} nothing for {' and '.join(empty)}; "
            f"bring more data{'' if len(keys) < len(shares) else ', or change data.validation_share and data.test_share'}"
        )
    return splits


class ArraySource:
    """A split held in memory or memory-mapped: rows of tensors by index."""

    def __init__(self, values: Tensor, mask: Tensor | None = None, condition: Mapping[str, Tensor] | None = None) -> None:
        self.values, self.mask, self.conditions = values, mask, dict(condition or {})

    def __len__(self) -> int:
        return self.values.shape[0]

    @property
    def num_bytes(self) -> int:
        """Of all tensors."""
        tensors = [self.values, *self.conditions.values()] + ([] if self.mask is None else [self.mask])
        return sum(tensor.nbytes for tensor in tensors)

    def to(self, device: torch.device) -> ArraySource:
        """The same split on a device."""
        mask = None if self.mask is None else self.mask.to(device)
        return ArraySource(self.values.to(device), mask, {name: each.to(device) for name, each in self.conditions.items()})

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Rows at ``indices``; nothing random."""
        indices = to_device(indices, self.values.device)
        return Batch(
            self.values[indices],
            None if self.mask is None else self.mask[indices],
            {name: tensor[indices] for name, tensor in self.conditions.items()},
        )

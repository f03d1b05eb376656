"""Reads images into a Corpus: the embedded shapes, idx files or a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advgen import ArraySource, Batch, Corpus, DataError, DataRequest, Source, content_hash, is_manifest, split_indices
from advgen_image import shapes
from advgen_image.config import ImageConfig
from advgen_image.folder import read_folder
from advgen_image.idx import has_idx, read_idx


@dataclass(frozen=True)
class ImageArrays:
    """Images of one data set, before they are split.

    Args:
        values: (N, C, H, W) uint8 or uint16, in memory or memory-mapped.
        labels: (N,) int64, or None.
        classes: names of the labels, empty where there are none.
        keys: what each sample's split is hashed from.
        named_splits: the split of each sample, where the data name them.
        num_test: how many of the last samples are the data set's own test split; 0 where it has none.
    """

    values: NDArray[Any]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...]
    keys: Sequence[str]
    fingerprint: str
    num_test: int = 0
    bad: tuple[str, ...] = ()
    named_splits: tuple[str | None, ...] | None = None


class MappedSource:
    """A split of an array that may be memory-mapped: only the rows asked for are read."""

    def __init__(self, array: NDArray[Any], rows: Tensor, labels: Tensor | None) -> None:
        self.array, self.rows, self.labels = array, rows, labels

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Rows at ``indices``; nothing random."""
        values = _tensor(self.array[self.rows[indices].numpy()])
        return Batch(values, condition={} if self.labels is None else {"label": self.labels[indices]})


def array_source(values: NDArray[Any], labels: NDArray[np.int64] | None = None) -> ArraySource:
    """Images (N, C, H, W) uint8 or uint16, and labels (N,), as a source held in memory."""
    condition = {} if labels is None else {"label": torch.from_numpy(labels)}
    return ArraySource(_tensor(values), condition=condition)


def _tensor(values: NDArray[Any]) -> Tensor:
    """uint8 stays; uint16 becomes int32, as few tensor operations know uint16."""
    return torch.from_numpy(np.ascontiguousarray(values if values.dtype == np.uint8 else values.astype(np.int32)))


def read_corpus(config: ImageConfig, request: DataRequest) -> Corpus:
    """Images of ``request.path``, or the embedded shapes.

    Raises:
        DataError: where the path is missing, holds no images, or holds too many that cannot be read.
    """
    if request.path is None:
        return _shapes_corpus(config, request)
    path = request.path.expanduser()
    if not path.exists():
        raise DataError(
            f"data path {path} does not exist; expected a folder of images or of idx files, or a .csv, .tsv or .jsonl list"
        )
    is_idx = not is_manifest(path) and has_idx(path)
    found = read_idx(path, config) if is_idx else read_folder(path, config, request.max_bad)
    arrays = ImageArrays(**vars(found))
    kind = "idx" if is_idx else "folder"
    return _corpus(arrays, request, {"corpus": kind})


def _shapes_corpus(config: ImageConfig, request: DataRequest) -> Corpus:
    """The embedded corpus, with the histograms of its factors among the facts."""
    asked = (config.image_height or shapes.SIDE, config.image_width or shapes.SIDE, config.channels or 3)
    if asked != (shapes.SIDE, shapes.SIDE, 3):
        raise DataError(f"the embedded shapes are 32x32 with 3 channels, got options for {asked}; remove them or set data.path")
    values, factors = shapes.make_shapes()
    arrays = ImageArrays(
        values=values,
        labels=factors["shape"],
        classes=shapes.SHAPES,
        keys=[f"shapes/{index}" for index in range(len(values))],
        fingerprint=content_hash([b"shapes", bytes([shapes.VERSION]), values.tobytes()]),
    )
    return _corpus(arrays, request, {"corpus": "shapes", "factors": shapes.histograms(factors)})


def _corpus(arrays: ImageArrays, request: DataRequest, facts: dict[str, Any]) -> Corpus:
    num_classes = len(arrays.classes)
    labels = arrays.labels if num_classes > 1 else None
    _, channels, height, width = arrays.values.shape
    rows = split_rows(arrays, request)
    counts = [] if labels is None else np.bincount(labels[rows["train"].numpy()], minlength=num_classes).tolist()
    facts = facts | {
        "height": height,
        "width": width,
        "channels": channels,
        "bits": 8 * arrays.values.dtype.itemsize,
        "classes": [] if labels is None else list(arrays.classes),
        "class_counts": counts,
    }
    splits = {name: _split(arrays, labels, own) for name, own in rows.items()}
    return Corpus(facts, splits, arrays.fingerprint, arrays.bad)


def split_rows(arrays: ImageArrays, request: DataRequest) -> dict[str, Tensor]:
    """Rows of each split; a data set's own test split is kept whole."""
    if not arrays.num_test:
        return split_indices(arrays.keys, request, arrays.named_splits)
    half = request.validation_share / 2
    num_train = len(arrays.keys) - arrays.num_test
    hashed = split_indices(arrays.keys[:num_train], replace(request, validation_share=half, test_share=half))
    validation = torch.cat([hashed["validation"], hashed["test"]]).sort().values
    return {"train": hashed["train"], "validation": validation, "test": torch.arange(num_train, len(arrays.keys))}


def _split(arrays: ImageArrays, labels: NDArray[np.int64] | None, rows: Tensor) -> Source:
    own = None if labels is None else labels[rows.numpy()]
    if isinstance(arrays.values, np.memmap):
        return MappedSource(arrays.values, rows, None if own is None else torch.from_numpy(own))
    return array_source(arrays.values[rows.numpy()], own)

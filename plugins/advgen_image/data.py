"""Reads images into a Corpus: the embedded shapes, idx files, or image files wherever they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advgen import Corpus, DataError, DataRequest, Source, content_hash, is_manifest, split_indices, user_path
from advgen_image import shapes
from advgen_image.config import ImageConfig
from advgen_image.folder import read_folder
from advgen_image.idx import has_idx, read_idx
from advgen_image.listing import unzipped
from advgen_image.sources import ArrayStore, ImageSource, View


@dataclass(frozen=True)
class ImageArrays:
    """Images of one data set, before they are split.

    Args:
        values: (N, C, H, W) uint8 or uint16, in memory or memory-mapped.
        labels: (N,) int64, or None.
        classes: names of the labels, empty where there are none.
        keys: what each sample's split is hashed from.
        named_splits: the split of each sample, where the data name them.
        notes: sentences that are said when a run starts.
        num_test: how many of the last samples are the data set's own test split; 0 where it has none.
    """

    values: NDArray[Any]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...]
    keys: Sequence[str]
    fingerprint: str
    num_test: int = 0
    bad: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    named_splits: tuple[str | None, ...] | None = None


def read_corpus(config: ImageConfig, request: DataRequest) -> Corpus:
    """Images of ``request.path`` or ``request.address``, or the embedded shapes.

    Raises:
        DataError: where the path is missing, holds no images, or holds too many that cannot be read.
    """
    if request.path is None and not request.address:
        return _shapes_corpus(config, request)
    if request.path is not None:
        path = user_path(request.path)
        if not path.exists():
            raise DataError(
                f"data path {path} does not exist; expected a folder of images or of idx files, a zip archive of images, a "
                ".csv, .tsv or .jsonl list, or a Hugging Face data set"
            )
        request = replace(request, path=path)
    with unzipped(request) as opened:
        if opened.path is not None and not is_manifest(opened.path) and has_idx(opened.path):
            return _corpus(ImageArrays(**vars(read_idx(opened.path, config))), opened, config, {"corpus": "idx"})
        found, kind = read_folder(config, opened)
        return _corpus(ImageArrays(**vars(found)), opened, config, {"corpus": kind})


def _shapes_corpus(config: ImageConfig, request: DataRequest) -> Corpus:
    """The embedded corpus, with the histograms of its factors among the facts."""
    asked = (config.image_height or shapes.SIDE, config.image_width or shapes.SIDE, config.channels or 3)
    if asked != (shapes.SIDE, shapes.SIDE, 3):
        raise DataError(f"the embedded shapes are 32x32 with 3 channels, got options for {asked}; remove them or set data.path")
    if config.crop_margin:
        raise DataError(
            f"options.crop_margin={config.crop_margin}: the embedded shapes are not cropped; remove it or set data.path"
        )
    values, factors = shapes.make_shapes()
    arrays = ImageArrays(
        values=values,
        labels=factors["shape"],
        classes=shapes.SHAPES,
        keys=[f"shapes/{index}" for index in range(len(values))],
        fingerprint=content_hash([b"shapes", bytes([shapes.VERSION]), values.tobytes()]),
    )
    return _corpus(arrays, request, config, {"corpus": "shapes", "factors": shapes.histograms(factors)})


def _corpus(arrays: ImageArrays, request: DataRequest, config: ImageConfig, facts: dict[str, Any]) -> Corpus:
    num_classes = len(arrays.classes)
    labels = arrays.labels if num_classes > 1 else None
    _, channels, height, width = arrays.values.shape
    rows = split_rows(arrays, request)
    counts = [] if labels is None else np.bincount(labels[rows["train"].numpy()], minlength=num_classes).tolist()
    facts = facts | {
        "height": height - config.crop_margin,
        "width": width - config.crop_margin,
        "channels": channels,
        "bits": 8 * arrays.values.dtype.itemsize,
        "classes": [] if labels is None else list(arrays.classes),
        "class_counts": counts,
    }
    read_as = {"margin": config.crop_margin, "animation": config.animation}
    plain = read_as == {"margin": 0, "animation": "first"}
    fingerprint = arrays.fingerprint if plain else content_hash([arrays.fingerprint.encode(), repr(read_as).encode()])
    return Corpus(facts, _splits(arrays, labels, rows, config), fingerprint, arrays.bad, arrays.notes)


def _splits(
    arrays: ImageArrays, labels: NDArray[np.int64] | None, rows: dict[str, Tensor], config: ImageConfig
) -> dict[str, Source]:
    """The splits; where training samples are mirrored or cropped at random, ``reference`` is these as they are."""
    plain = {name: _split(arrays, labels, own, View(config.crop_margin)) for name, own in rows.items()}
    if not (config.flip or config.crop_margin):
        return {**plain}
    return {
        **plain,
        "train": replace(plain["train"], view=View(config.crop_margin, config.flip, True)),
        "reference": plain["train"],
    }


def split_rows(arrays: ImageArrays, request: DataRequest) -> dict[str, Tensor]:
    """Rows of each split; a data set's own test split is kept whole."""
    if not arrays.num_test:
        return split_indices(arrays.keys, request, arrays.named_splits)
    half = request.validation_share / 2
    num_train = len(arrays.keys) - arrays.num_test
    hashed = split_indices(arrays.keys[:num_train], replace(request, validation_share=half, test_share=half))
    validation = torch.cat([hashed["validation"], hashed["test"]]).sort().values
    return {"train": hashed["train"], "validation": validation, "test": torch.arange(num_train, len(arrays.keys))}


def _split(arrays: ImageArrays, labels: NDArray[np.int64] | None, rows: Tensor, view: View) -> ImageSource:
    own = None if labels is None else torch.from_numpy(labels[rows.numpy()])
    return ImageSource(ArrayStore(arrays.values, rows), own, len(rows), view)

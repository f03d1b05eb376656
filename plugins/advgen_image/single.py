"""One image file in the form of a data set, for projection."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from advgen import Batch, DataError
from advgen_image.decoding import SUFFIXES, BadImage, Header, Target, decode, read_header


def read_one(path: Path, facts: Mapping[str, Any]) -> tuple[Batch, list[str]]:
    """One image, (1, C, H, W), upright and in the data's size and channels, and what was changed of it.

    Raises:
        DataError: where the file is missing, or no image that can be read.
    """
    if not path.is_file():
        raise DataError(f"{path} is no file; expected an image: {' '.join(SUFFIXES)}")
    target = Target(facts["channels"], facts["height"], facts["width"], facts["bits"] == 16)
    try:
        header, pixels = read_header(path), decode(path, target)
    except (BadImage, OSError) as error:
        raise DataError(f"{path}: {error}; expected an image: {' '.join(SUFFIXES)}") from error
    values = pixels if pixels.dtype == np.uint8 else pixels.astype(np.int32)
    return Batch(torch.from_numpy(np.array(values[None]))), _changes(header, target)


def _changes(header: Header, target: Target) -> list[str]:
    """What was done to a file, in words that follow on "was"."""
    changes, wants_colour = list[str](), target.colours == 3
    if (header.height, header.width) != (target.height, target.width):
        changes.append(f"scaled and cropped from {header.height}x{header.width} to {target.height}x{target.width}")
    if header.colour != wants_colour:
        changes.append("made colour, it is grey" if wants_colour else "made grey, it is colour")
    if header.alpha != target.alpha:
        changes.append("given transparency, it has none" if target.alpha else "laid on white, it has transparency")
    return changes

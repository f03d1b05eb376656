"""Images to PNG files: one per sample, and a grid. Legend: N images, C channels, H height, W width."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

GRID_GAP = 2
SMALLEST_CELL = 64


def to_pixels(values: Tensor, bits: int = 8) -> NDArray[Any]:
    """Values (N, C, H, W) in [-1, 1] -> (N, H, W, C) uint8 or uint16; what lies outside is clipped."""
    top = 2**bits - 1
    scaled = (values.detach().float().cpu().clamp(-1, 1) + 1) * (top / 2)
    return scaled.round().permute(0, 2, 3, 1).numpy().astype(np.uint16 if bits == 16 else np.uint8)


def to_picture(pixels: NDArray[Any]) -> Image.Image:
    """(H, W, C) as a Pillow image; 16 bit for grey alone, as PNG through Pillow has no other."""
    if pixels.shape[2] == 1:
        return Image.fromarray(pixels[:, :, 0])
    return Image.fromarray(pixels if pixels.dtype == np.uint8 else (pixels // 257).astype(np.uint8))


def write_images(values: Tensor, folder: Path, *, start: int, bits: int) -> list[Path]:
    """``00000.png`` and on, in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{start + index:05d}.png" for index in range(len(values))]
    for path, pixels in zip(paths, to_pixels(values, bits), strict=True):
        to_picture(pixels).save(path)
    return paths


def write_grid(values: Tensor, stem: Path) -> list[Path]:
    """All images in one PNG beside ``stem``, nearly square, small images enlarged by a whole factor."""
    pixels = to_pixels(values)
    enlarge = max(1, math.ceil(SMALLEST_CELL / max(pixels.shape[1:3])))
    pixels = pixels.repeat(enlarge, 1).repeat(enlarge, 2)
    count, height, width, channels = pixels.shape
    columns = max(1, math.ceil(math.sqrt(count)))
    rows = max(1, math.ceil(count / columns))
    canvas = np.full((rows * (height + GRID_GAP) - GRID_GAP, columns * (width + GRID_GAP) - GRID_GAP, channels), 255, np.uint8)
    for index, image in enumerate(pixels):
        top, left = index // columns * (height + GRID_GAP), index % columns * (width + GRID_GAP)
        canvas[top : top + height, left : left + width] = image
    path = stem.with_name(stem.name + ".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    to_picture(canvas).save(path)
    return [path]

"""Images to PNG files: one per sample, and a grid. Legend: N images, C channels, H height, W width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

GRID_GAP = 2
SMALLEST_CELL = 64
FRAME_MILLISECONDS = 40


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


def write_grid(values: Tensor, stem: Path, *, columns: int | None = None, blank: int = 0) -> list[Path]:
    """All images in one PNG beside ``stem``, nearly square or in so many columns, after ``blank`` empty places."""
    path = stem.with_name(stem.name + ".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    to_picture(arrange(values, columns, blank)).save(path)
    return [path]


def arrange(values: Tensor, columns: int | None = None, blank: int = 0) -> NDArray[np.uint8]:
    """Images (N, C, H, W) side by side on white, (H', W', C); small ones are enlarged by a whole factor."""
    pixels = to_pixels(values)
    enlarge = max(1, math.ceil(SMALLEST_CELL / max(pixels.shape[1:3])))
    pixels = pixels.repeat(enlarge, 1).repeat(enlarge, 2)
    count, height, width, channels = pixels.shape
    columns = columns or max(1, math.ceil(math.sqrt(count + blank)))
    rows = max(1, math.ceil((count + blank) / columns))
    canvas = np.full((rows * (height + GRID_GAP) - GRID_GAP, columns * (width + GRID_GAP) - GRID_GAP, channels), 255, np.uint8)
    for index, image in enumerate(pixels, blank):
        top, left = index // columns * (height + GRID_GAP), index % columns * (width + GRID_GAP)
        canvas[top : top + height, left : left + width] = image
    return canvas


def write_animation(frames: Sequence[Tensor], stem: Path, kind: str) -> list[Path]:
    """One picture for each of ``frames`` (N, C, H, W), its images side by side: ``gif`` or ``apng``."""
    pictures = [to_picture(arrange(values)) for values in frames]
    if kind == "gif":
        pictures = [_opaque(picture) for picture in pictures]
    path = stem.with_name(f"{stem.name}.{kind}")
    path.parent.mkdir(parents=True, exist_ok=True)
    more: dict[str, Any] = {"format": "GIF"} if kind == "gif" else {"format": "PNG", "default_image": False}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=FRAME_MILLISECONDS, loop=0, **more)
    return [path]


def _opaque(picture: Image.Image) -> Image.Image:
    """On white, as a GIF has no half transparency."""
    if picture.mode not in ("LA", "RGBA"):
        return picture
    ground = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(ground, picture.convert("RGBA")).convert(picture.mode[:-1])

"""One image file to one array, with every limit and refusal in one place. Legend: C channels, H height, W width."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from advgen_image.config import ImageConfig

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
LARGEST_PIXELS = 64 * 2**20
ORIENTATION_TAG = 0x0112
DEEP_MODES = ("I;16", "I;16B", "I;16L", "I")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class BadImage(Exception):
    """One file cannot be used; the text says why."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself: upright size, whether it has colour, transparency, 16 bit."""

    height: int
    width: int
    colour: bool
    alpha: bool
    deep: bool


@dataclass(frozen=True)
class Target:
    """What every file of a data set is turned into."""

    channels: int
    height: int
    width: int
    deep: bool

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Of the stored array."""
        return np.uint16 if self.deep else np.uint8


def read_header(file: Path) -> Header:
    """Size and kind of a file, without decoding it.

    Raises:
        BadImage: where it is empty, no image, too large, or of an unknown kind.
    """
    if not file.stat().st_size:
        raise BadImage("the file is empty (0 bytes)")
    with open_image(file) as image:
        width, height = image.size
        if width * height > LARGEST_PIXELS:
            raise BadImage(f"{width}x{height} pixels are more than the limit of {LARGEST_PIXELS}")
        if image.mode == "F":
            raise BadImage("32-bit float pixels, expected 8 or 16 bit")
        if image.getexif().get(ORIENTATION_TAG, 1) in (5, 6, 7, 8):
            width, height = height, width
        alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
        colour = image.mode not in ("1", "L", "LA", "La", *DEEP_MODES)
        return Header(height, width, colour, alpha, image.mode in DEEP_MODES)


def decode(file: Path, target: Target) -> NDArray[Any]:
    """One file as (C, H, W), upright, resized and cropped about the centre where its size differs.

    Raises:
        BadImage: where the file is damaged.
    """
    with open_image(file) as image:
        try:
            image.load()
            upright = ImageOps.exif_transpose(image)
        except Exception as error:  # Pillow's decoders raise many kinds on damaged data
            raise BadImage(f"damaged: {error}") from error
        return _convert(upright, target)


def open_image(file: Path) -> Image.Image:
    """A file of a known format, not decoded yet.

    Raises:
        BadImage: where it is none, damaged or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BadImage(f"too many pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise BadImage(f"not a {', '.join(FORMATS)} image") from error
    except Exception as error:  # damaged headers raise struct, value and syntax errors
        raise BadImage(f"cannot be opened: {error}") from error


def _convert(image: Image.Image, target: Target) -> NDArray[Any]:
    if image.mode in DEEP_MODES:
        return _convert_deep(image, target)
    plain = _fit(image.convert(MODES[target.channels]), target)
    pixels = np.atleast_3d(np.asarray(plain)).transpose(2, 0, 1)
    return pixels.astype(np.uint16) * 257 if target.deep else pixels


def _convert_deep(image: Image.Image, target: Target) -> NDArray[Any]:
    """16-bit grey; scaled to 8 bit where the rest of the data set has 8."""
    grey = _fit(Image.fromarray(np.asarray(image).astype(np.float32)), target)
    pixels = np.clip(np.rint(np.asarray(grey)), 0, 65535)[None].repeat(min(target.channels, 3), 0)
    if target.channels == 4:
        pixels = np.concatenate([pixels, np.full_like(pixels[:1], 65535)])
    return pixels.astype(np.uint16) if target.deep else np.rint(pixels / 257).astype(np.uint8)


def _fit(image: Image.Image, target: Target) -> Image.Image:
    size = (target.width, target.height)
    return image if image.size == size else ImageOps.fit(image, size, Image.Resampling.BICUBIC)


def fit_array(images: NDArray[np.uint8], config: ImageConfig) -> NDArray[np.uint8]:
    """Grey images (N, H, W) as (N, C, H, W) of the size and channels that the options ask for."""
    target = Target(config.channels or 1, config.image_height or images.shape[1], config.image_width or images.shape[2], False)
    if (target.height, target.width) == images.shape[1:]:
        grey = images[:, None]
    else:
        grey = np.stack([np.asarray(_fit(Image.fromarray(image), target)) for image in images])[:, None]
    colour = grey.repeat(min(target.channels, 3), 1)
    return np.concatenate([colour, np.full_like(grey, 255)], 1) if target.channels == 4 else colour

"""One image file to arrays, with every limit and refusal in one place. Legend: C channels, H height, W width."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
LARGEST_PIXELS = 64 * 2**20
LARGEST_ANIMATION = 16 * LARGEST_PIXELS
SMALLEST_FRAME_BYTES = 8
"""Fewest bytes that any format needs per picture of an animation. A file that promises more pictures is refused."""
LARGE_PIXELS = 16 * 2**20
LARGE_AT_ONCE = threading.BoundedSemaphore(4)
"""Limit on the threads that decode pictures above that size at the same time, on any number of cores."""
TILE_TAGS = (322, 323)
ORIENTATION_TAG = 0x0112
DEEP_MODES = ("I;16", "I;16B", "I;16L", "I")
ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

Place = Path | Callable[[], IO[bytes]]
"""A file, or what opens it where it has no path of its own."""


class BadImage(Exception):
    """One file cannot be used; the text says why."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself: upright size, whether it has colour, transparency, 16 bit, is turned; its pictures."""

    height: int
    width: int
    colour: bool
    alpha: bool
    deep: bool
    turned: bool = False
    frames: int = 1


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

    @property
    def colours(self) -> int:
        """Channels besides transparency: 1 or 3."""
        return 3 if self.channels > 2 else 1

    @property
    def alpha(self) -> bool:
        """Whether the last channel is transparency."""
        return self.channels in (2, 4)


def read_header(place: Place, every: bool = False) -> Header:
    """Size and kind of a file, without decoding it.

    Args:
        every: whether all pictures of an animated file will be wanted, so that their sizes count too.

    Raises:
        BadImage: where it is empty, no image, too large, or of an unknown kind.
    """
    if isinstance(place, Path) and not place.stat().st_size:
        raise BadImage("the file is empty (0 bytes)")
    with open_image(place) as image:
        try:
            _refuse_large(image.size, 1)
            _refuse_tiles(image)
            header = _header(image)
            if every:
                _refuse_large(image.size, header.frames)
                _refuse_frames(place, header.frames)
                _refuse_mixed(image, header.frames)
        except (BadImage, OSError):
            raise
        except Exception as error:  # damaged EXIF and frame tables raise struct, value, key and syntax errors
            raise BadImage(f"cannot be opened: {error}") from error
    return header


def _refuse_large(size: tuple[int, int], frames: int) -> None:
    """A small file can hold a picture, or very many pictures, that no memory holds."""
    for number, limit, text in ((1, LARGEST_PIXELS, ""), (frames, LARGEST_ANIMATION, f" in each of {frames} pictures")):
        if size[0] * size[1] * number > limit:
            raise BadImage(f"{size[0]}x{size[1]} pixels{text} are more than the limit of {limit}")


def _refuse_tiles(image: Image.Image) -> None:
    """Refuse a TIFF with tiles larger than any allowed picture, because its decoder allocates a whole tile."""
    tags = getattr(image, "tag_v2", {})
    width, height = (tags.get(tag, 1) for tag in TILE_TAGS)
    if not all(isinstance(side, int) for side in (width, height)) or width * height > LARGEST_PIXELS:
        raise BadImage(f"tiles of {width}x{height} pixels are more than the limit of {LARGEST_PIXELS}")


def _refuse_frames(place: Place, frames: int) -> None:
    if frames == 1:
        return
    if isinstance(place, Path):
        size = place.stat().st_size
    else:
        with place() as stream:
            size = stream.seek(0, 2)
    if frames * SMALLEST_FRAME_BYTES > size:
        raise BadImage(f"promises {frames} pictures, and {size} bytes cannot hold so many")


def _refuse_mixed(image: Image.Image, frames: int) -> None:
    """Only pages of a TIFF can differ in size; what they have does not fit one array."""
    first = image.size
    for frame in range(1, frames if image.format == "TIFF" else 1):
        image.seek(frame)
        if image.size != first:
            sizes = f"{image.size[0]}x{image.size[1]}, the first {first[0]}x{first[1]}"
            raise BadImage(f"page {frame} is {sizes}; take the first alone with options.animation=first")


def _header(image: Image.Image) -> Header:
    if image.mode == "F":
        raise BadImage("32-bit float pixels, expected 8 or 16 bit")
    width, height = image.size
    orientation = image.getexif().get(ORIENTATION_TAG, 1)
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    alpha = image.mode in ALPHA_MODES or "transparency" in image.info
    colour = image.mode not in ("1", "L", "LA", "La", *DEEP_MODES)
    # The further pictures of a camera's MPO file are previews and depth, no animation.
    frames = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
    return Header(height, width, colour, alpha, image.mode in DEEP_MODES, orientation in range(2, 9), frames)


def decode(place: Place, target: Target) -> NDArray[Any]:
    """The first picture of a file as (C, H, W), upright, resized and cropped about the centre where its size differs.

    Raises:
        BadImage: where the file is damaged.
    """
    (found,) = decode_each(place, target, [0])
    if isinstance(found, BadImage):
        raise found
    return found


def decode_each(place: Place, target: Target, frames: Sequence[int]) -> Iterator[NDArray[Any] | BadImage]:
    """Some pictures of an animated file, in rising order; a refusal in the place of each that is damaged.

    Raises:
        BadImage: where the file cannot be opened.
    """
    with _open(place) as image:
        for frame in frames:
            try:
                if frame:
                    image.seek(frame)
                _refuse_large(image.size, 1)  # a GIF's canvas grows with its pictures
                _refuse_tiles(image)
                with LARGE_AT_ONCE if image.width * image.height > LARGE_PIXELS else contextlib.nullcontext():
                    image.load()
                    found = _convert(ImageOps.exif_transpose(image), target)
                yield found
            except BadImage as error:
                yield error
            except Exception as error:  # Pillow's decoders raise many kinds on damaged data
                yield BadImage(f"damaged: {error}")


def open_image(place: Place) -> Image.Image:
    """Open a file of a known format without decoding it. Not for use in threads: they share Python's warnings filters.

    Raises:
        BadImage: where it is none, damaged or too large.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return _open(place)


def _open(place: Place) -> Image.Image:
    try:
        return Image.open(place if isinstance(place, Path) else place(), formats=FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BadImage(f"too many pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise BadImage(f"not a {', '.join(FORMATS)} image") from error
    except Exception as error:  # damaged headers and archives raise many kinds
        raise BadImage(f"cannot be opened: {error}") from error


def _convert(image: Image.Image, target: Target) -> NDArray[Any]:
    if image.mode in DEEP_MODES:
        return _convert_deep(image, target)
    plain = _fit(_in_mode(image, MODES[target.channels]), target)
    pixels = np.atleast_3d(np.asarray(plain)).transpose(2, 0, 1)
    return pixels.astype(np.uint16) * 257 if target.deep else pixels


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """A mode of ``MODES``; what is transparent is laid on white where transparency is not kept."""
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        if mode not in ALPHA_MODES:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode in ("LAB", "HSV", "YCbCr", "CMYK"):
        image = image.convert("RGB")
    return image.convert(mode)


def _convert_deep(image: Image.Image, target: Target) -> NDArray[Any]:
    """16-bit grey; scaled to 8 bit where the rest of the data set has 8."""
    grey = _fit(Image.fromarray(np.asarray(image).astype(np.float32)), target)
    pixels = np.clip(np.rint(np.asarray(grey)), 0, 65535)[None].repeat(target.colours, 0)
    if target.alpha:
        pixels = np.concatenate([pixels, np.full_like(pixels[:1], 65535)])
    return pixels.astype(np.uint16) if target.deep else np.rint(pixels / 257).astype(np.uint8)


def _fit(image: Image.Image, target: Target) -> Image.Image:
    size = (target.width, target.height)
    return image if image.size == size else ImageOps.fit(image, size, Image.Resampling.BICUBIC)


def fit_array(images: NDArray[np.uint8], target: Target) -> NDArray[np.uint8]:
    """Grey images (N, H, W) as (N, C, H, W) of the size and channels that are wanted."""
    if (target.height, target.width) == images.shape[1:]:
        grey = images[:, None]
    else:
        grey = np.stack([np.asarray(_fit(Image.fromarray(image), target)) for image in images])[:, None]
    colour = grey.repeat(target.colours, 1)
    return np.concatenate([colour, np.full_like(grey, 255)], 1) if target.alpha else colour

"""What is in image files, wherever they lie, or in idx files, looked through one by one for ``gen data inspect``."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from advgen import (
    DataError,
    DataReport,
    DataRequest,
    Repeats,
    Show,
    Spread,
    Tally,
    few_notes,
    is_manifest,
    most_common,
    split_indices,
)
from advgen_image.config import ImageConfig
from advgen_image.data import ImageArrays, split_rows
from advgen_image.decoding import BadImage, Target, open_image, read_header
from advgen_image.folder import frames_of
from advgen_image.idx import has_idx, read_idx
from advgen_image.listing import Item, list_images, unzipped
from advgen_image.store import num_bytes

TINY_PIXELS = 16
HUGE_PIXELS = 2048
MEBIBYTE = 2**20


class _Findings:
    """Figures over all images."""

    def __init__(self, config: ImageConfig) -> None:
        self.config, self.num = config, 0
        self.sizes, self.modes, self.formats, self.bits = Counter[str](), Counter[str](), Counter[str](), Counter[int]()
        self.heights, self.widths, self.repeats = Spread(), Spread(), Repeats()
        self.animated, self.transparent, self.opaque, self.tiny, self.huge = Tally(), Tally(), Tally(), Tally(), Tally()
        self.grey, self.grey_in_colour, self.turned, self.frames = Tally(), Tally(), Tally(), Spread()
        self.kept: list[Item] = []

    def take(self, row: Item) -> None:
        """Look at one file.

        Raises:
            BadImage: where it cannot be used.
        """
        header = read_header(row.place, self.config.animation == "every")
        with open_image(row.place) as image:
            mode, kind = image.mode, image.format or "unknown"
            try:
                image.load()
            except Exception as error:  # Pillow's decoders raise many kinds on damaged data
                raise BadImage(f"damaged: {error}") from error
            self._look(row.name, image, header.colour)
            # Transparency of 16-bit pictures is not kept.
            opaque = header.alpha and (header.deep or image.convert("RGBA").getchannel("A").getextrema()[0] == 255)
        self.num += 1
        self.sizes[f"{header.height}x{header.width}"] += 1
        self.heights.add(header.height)
        self.widths.add(header.width)
        self.modes[mode] += 1
        self.formats[kind] += 1
        self.bits[16 if header.deep else 8] += 1
        small, large = min(header.height, header.width), max(header.height, header.width)
        named = {"animated": header.frames > 1, "turned": header.turned}
        named |= {"transparent": header.alpha and not opaque, "opaque": opaque}
        named |= {"tiny": small < TINY_PIXELS, "huge": large > HUGE_PIXELS}
        for name, applies in named.items():
            if applies:
                getattr(self, name).add(row.name)
        if header.frames > 1:
            self.frames.add(header.frames)
        self.kept += [row] * frames_of(header, self.config)

    def _look(self, name: str, image: Image.Image, colour: bool) -> None:
        """Content: hashed as colours where it has any, so that a format does not matter."""
        pixels = np.asarray(image.convert("RGBA") if colour or image.mode in ("1", "LA", "La") else image)
        self.repeats.add(name, hashlib.blake2b(str(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest())
        if not colour:
            self.grey.add(name)
        elif bool((pixels[..., :1] == pixels[..., 1:3]).all()):
            self.grey_in_colour.add(name)


def inspect_images(config: ImageConfig, request: DataRequest, show: Show) -> DataReport:
    """A report on every image that training would read, and on those that it could not.

    Raises:
        DataError: where there is no image at all.
    """
    with unzipped(request) as opened:
        return _inspect(config, opened, show)


def _inspect(config: ImageConfig, request: DataRequest, show: Show) -> DataReport:
    place = request.path
    if place is not None and not is_manifest(place) and has_idx(place):
        return _inspect_idx(place, config, request)
    listing, report, found = list_images(config, request), DataReport("images"), _Findings(config)
    for reason in listing.bad:
        report.refuse(*reason.split(": ", 1))
    for number, row in enumerate(listing.items, start=1):
        try:
            found.take(row)
        except (BadImage, OSError) as error:
            report.refuse(row.name, str(error))
        show(number, len(listing.items))
    report.count, report.duplicates, report.details = len(found.kept), found.repeats.summary(), _details(found)
    if found.kept:
        _add_training(report, found, config, request, listing.way_to_label)
        report.classes = {name: report.classes[name] for name in listing.classes if name in report.classes} or report.classes
    return report


def _details(found: _Findings) -> dict[str, object]:
    return {
        "sizes": most_common(found.sizes),
        "height": found.heights.summary(total=False),
        "width": found.widths.summary(total=False),
        "modes": most_common(found.modes),
        "formats": most_common(found.formats),
        "bits": most_common(found.bits),
        "grey": found.grey.summary(),
        "grey_in_colour_files": found.grey_in_colour.summary(),
        "transparent": found.transparent.summary(),
        "opaque_with_alpha": found.opaque.summary(),
        "turned_by_exif": found.turned.summary(),
        "animated": found.animated.summary(),
        "pictures_of_animated": found.frames.summary(),
        f"below_{TINY_PIXELS}_pixels": found.tiny.summary(),
        f"above_{HUGE_PIXELS}_pixels": found.huge.summary(),
    }


def _add_training(report: DataReport, found: _Findings, config: ImageConfig, request: DataRequest, way: str) -> None:
    kept, remarks = found.kept, report.remarks
    names, named = [row.name for row in kept], [row.split for row in kept]
    report.divide([row.label for row in kept], names, lambda: split_indices(names, request, named), way)
    if len(found.sizes) > 1 and not (config.image_height and config.image_width):
        remarks.append(
            f"{len(found.sizes)} sizes: training wants options.image_height and options.image_width to resize and crop to"
        )
    if found.animated.count and config.animation == "first":
        remarks.append(
            f"of {found.animated.count} animated images the first picture alone is used; options.animation=every takes all"
        )
    _add_size(report, found, config)


def _add_size(report: DataReport, found: _Findings, config: ImageConfig) -> None:
    """What decoded images take, and where they would be."""
    height, width = (int(size) for size in found.sizes.most_common(1)[0][0].split("x"))
    alpha = bool(found.transparent.count or found.opaque.count)
    channels = config.channels or (3 if found.grey.count < found.num else 1) + alpha
    margin = config.crop_margin
    deep = set(found.bits) == {16}
    target = Target(channels, (config.image_height or height) + margin, (config.image_width or width) + margin, deep)
    decoded = num_bytes(len(found.kept), target) / MEBIBYTE
    where = "memory" if decoded <= config.memory_mib else "a file in the cache"
    report.details["decoded"] = {"mib": round(decoded, 1), "kept_in": where, "channels": channels}


def _inspect_idx(place: Path, config: ImageConfig, request: DataRequest) -> DataReport:
    """idx files are read as training reads them: a byte a pixel."""
    arrays, report, repeats = ImageArrays(**vars(read_idx(place, config))), DataReport("images"), Repeats()
    for number, image in enumerate(arrays.values):
        repeats.add(f"image {number}", hashlib.blake2b(image.tobytes(), digest_size=16).digest())
    _, channels, height, width = arrays.values.shape
    report.count, report.duplicates = len(arrays.values), repeats.summary()
    report.details = {
        "sizes": {f"{height}x{width}": report.count},
        "channels": {str(channels): report.count},
        "bits": {"8": report.count},
    }
    if arrays.labels is not None:
        counts = np.bincount(arrays.labels, minlength=len(arrays.classes)).tolist()
        report.classes = dict(zip(arrays.classes, counts, strict=True))
        report.remarks += few_notes(report.classes, report.unit)
    try:
        report.splits = {name: len(rows) for name, rows in split_rows(arrays, request).items()}
    except DataError as error:
        report.remarks.append(str(error))
    return report

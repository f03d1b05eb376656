"""Images in files as one array in memory, or mapped from the user's cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advgen import DataError, DataRequest, class_notes, content_hash, most_unpacked, size_text
from advgen_image.config import ImageConfig
from advgen_image.decoding import BadImage, Header, Target, read_header
from advgen_image.listing import Item, Listing, list_images
from advgen_image.store import Picture, load_pictures, num_bytes

LARGEST_HASHED = 512 * 2**20
MOST_TIMES = 1000
"""Largest factor by which encoding shrinks pictures. Flat drawings shrink some hundred times, photographs ten times."""
ANY = 2**63 - 1
MEBIBYTE = 2**20


@dataclass(frozen=True)
class FolderArrays:
    """Images of a folder, list, zip archive or Hugging Face data set, with what was left out."""

    values: NDArray[Any]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...]
    keys: list[str]
    fingerprint: str
    bad: tuple[str, ...]
    notes: tuple[str, ...] = ()
    named_splits: tuple[str | None, ...] | None = None


def read_folder(config: ImageConfig, request: DataRequest) -> tuple[FolderArrays, str]:
    """Every image of what was asked for, decoded once, and what kind of place it was.

    Raises:
        DataError: where there are no images, sizes differ without a wanted size, or more than ``max_bad`` are unreadable.
    """
    listing = list_images(config, request)
    good, bad = _read_headers(listing, config)
    _refuse_too_many(bad, request.max_bad, listing.place, len(good))
    target = _target(good, listing, config)
    items = [item for item, _ in good]
    fingerprint = _fingerprint(items, listing)
    pictures = [Picture(item, frame) for item, header in good for frame in range(frames_of(header, config))]
    _refuse_bombs(items, num_bytes(len(pictures), target), listing.place)
    loaded = load_pictures(pictures, target, fingerprint, config.memory_mib * MEBIBYTE)
    bad += loaded.bad
    kept = [pictures[place].item for place in loaded.kept]
    _refuse_too_many(bad, request.max_bad, listing.place, len(kept))
    labels, classes = _labels(kept, listing)
    named = tuple(item.split for item in kept) if listing.names_splits else None
    keys = [item.name for item in kept]  # pictures of one file stay in one split
    notes = class_notes([item.label for item in kept], keys, "images", listing.way_to_label) if config.conditional else ()
    return FolderArrays(loaded.values, labels, classes, keys, fingerprint, tuple(bad), notes, named), listing.kind


def frames_of(header: Header, config: ImageConfig) -> int:
    """How many samples a file is."""
    return header.frames if config.animation == "every" else 1


def _read_headers(listing: Listing, config: ImageConfig) -> tuple[list[tuple[Item, Header]], list[str]]:
    good, bad = [], list(listing.bad)
    for item in listing.items:
        try:
            good.append((item, read_header(item.place, config.animation == "every")))
        except (BadImage, OSError) as error:
            bad.append(f"{item.name}: {error}")
    return good, bad


def _refuse_too_many(bad: list[str], max_bad: int, place: str, num_good: int) -> None:
    if len(bad) <= max_bad and num_good:
        return
    listed = "\n  ".join(bad[:20])
    if not num_good:
        raise DataError(f"none of the {len(bad)} images in {place} can be read; repair them, or give other data:\n  {listed}")
    raise DataError(
        f"{len(bad)} of {len(bad) + num_good} images in {place} cannot be read, at most {max_bad} may be left out; "
        f"repair or remove them, or raise data.max_bad:\n  {listed}"
    )


def _refuse_bombs(items: Sequence[Item], decoded: int, place: str) -> None:
    """Refuse small files that decode to a huge size, before memory or disk is used for it."""
    encoded = sum(item.state()[0] for item in items)
    if decoded > (most := most_unpacked(encoded, MOST_TIMES, largest=ANY)):
        raise DataError(
            f"images in {place} decode to {size_text(decoded)}, too much for files of {size_text(encoded)} (limit "
            f"{size_text(most)}); set smaller options.image_height and options.image_width, or set ADVGEN_MAX_UNPACKED_GIB to "
            "a larger number of GiB if you trust them"
        )


def _target(good: Sequence[tuple[Item, Header]], listing: Listing, config: ImageConfig) -> Target:
    """The common size and kind of all files."""
    sizes = Counter((header.height, header.width) for _, header in good)
    (height, width), _ = sizes.most_common(1)[0]
    if len(sizes) > 1 and not (config.image_height and config.image_width):
        odd, header = next(pair for pair in good if (pair[1].height, pair[1].width) != (height, width))
        raise DataError(
            f"images in {listing.place} have {len(sizes)} sizes: mostly {height}x{width}, but {odd.name} is "
            f"{header.height}x{header.width}; set options.image_height and options.image_width to resize and crop"
        )
    alpha, colour = any(header.alpha for _, header in good), any(header.colour for _, header in good)
    channels = config.channels or (3 if colour else 1) + alpha
    deep = all(header.deep for _, header in good)
    margin = config.crop_margin
    return Target(channels, (config.image_height or height) + margin, (config.image_width or width) + margin, deep)


def _labels(items: Sequence[Item], listing: Listing) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Numbers and names of the classes; none where any image has no label (lies at the folder's top)."""
    owners = [item.label for item in items if item.label is not None]
    if len(owners) < len(items):
        return None, ()
    found = set(owners)
    classes = tuple(name for name in listing.classes if name in found) or tuple(sorted(found))
    number = {name: index for index, name in enumerate(classes)}
    return np.array([number[name] for name in owners], dtype=np.int64), classes


def _fingerprint(items: Sequence[Item], listing: Listing) -> str:
    """Over the content; over names, sizes and times or checksums where that would mean reading more than 512 MB."""
    states = [item.state() for item in items]
    names = [item.name.encode() for item in items]
    if listing.names_splits:
        names = [f"{item.name}\t{item.label}\t{item.split}".encode() for item in items]
    if sum(size for size, _ in states) > LARGEST_HASHED:
        marks = [state.encode() for _, state in states]
        return content_hash(part for pair in zip(names, marks, strict=True) for part in pair)
    return content_hash(part for name, item in zip(names, items, strict=True) for part in (name, _content(item)))


def _content(item: Item) -> bytes:
    """What the file holds; what a damaged archive's member claims to be, as decoding tells of it later."""
    try:
        return item.read()
    except OSError:
        raise
    except Exception:  # zip members raise many kinds
        return item.state()[1].encode()

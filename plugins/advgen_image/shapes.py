"""The embedded corpus ``shapes``: one coloured shape on a dark ground, and a reader that measures its factors.

Legend: N images, S side in pixels. Made by this code and a fixed seed alone; no data is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SIDE = 32
NUM_IMAGES = 6000
SEED = 20250101
VERSION = 2
BACKGROUND = 0.1
SHAPES = ("circle", "square", "triangle")
# Bins of each factor by their centre; samples jitter about it by less than half the gap, so that a bin can be read back.
RADII = (4.5, 6.0, 7.5)
PLACES = (13.0, 16.0, 19.0)
NUM_HUES = 6
JITTER = {"hue": 0.03, "size": 0.3, "place": 0.7}
FACTORS = {"shape": len(SHAPES), "hue": NUM_HUES, "size": len(RADII), "place_x": len(PLACES), "place_y": len(PLACES)}
SMALLEST_AREA, LARGEST_AREA = 35.0, 240.0
SPECK_PIXELS = 5
LEAST_OVERLAP = 0.8
LEAST_CONTRAST = 0.25
MOST_COLOUR_SPREAD = 0.2
MOST_COLOUR_ERROR = 0.3
HUE_TOLERANCE = 0.05

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Reading:
    """Factors measured on N images: bin numbers (N,), whether exactly one clean shape was found, and hues in turns (N,)."""

    factors: dict[str, Ints]
    valid: NDArray[np.bool_]
    hue: Floats


def make_shapes(num_images: int = NUM_IMAGES, seed: int = SEED) -> tuple[NDArray[np.uint8], dict[str, Ints]]:
    """Images (N, 3, S, S) uint8 and the bin of every factor, each (N,)."""
    random = np.random.Generator(np.random.PCG64(seed))
    bins: dict[str, Ints] = {name: random.integers(0, count, num_images) for name, count in FACTORS.items()}

    def jitter(name: str) -> Floats:
        return random.uniform(-JITTER[name], JITTER[name], num_images)

    hue = bins["hue"] / NUM_HUES + jitter("hue")
    radius = np.take(RADII, bins["size"]) + jitter("size")
    centre_x = np.take(PLACES, bins["place_x"]) + jitter("place")
    centre_y = np.take(PLACES, bins["place_y"]) + jitter("place")
    colour = hue_to_rgb(hue)[:, :, None, None]
    cover = draw(bins["shape"], radius, centre_x, centre_y)[:, None]
    images = BACKGROUND + cover * (colour - BACKGROUND)
    return np.rint(images * 255).astype(np.uint8), bins


def hue_to_rgb(hue: Floats) -> Floats:
    """Full-saturation colours (N, 3) in [0.1, 0.95]; hue in turns, 0 red, 1/3 green, 2/3 blue."""
    offsets = np.array([0.0, 4.0, 2.0])
    ramp = np.clip(np.abs((hue[:, None] * 6 + offsets) % 6 - 3) - 1, 0, 1)
    return 0.1 + 0.85 * ramp


def rgb_to_hue(colour: Floats) -> Floats:
    """Hue in turns (N,) of colours (N, 3)."""
    red, green, blue = colour.T
    return (np.arctan2(np.sqrt(3.0) * (green - blue), 2 * red - green - blue) / (2 * np.pi)) % 1.0


def draw(shape: Ints, radius: Floats, centre_x: Floats, centre_y: Floats) -> Floats:
    """Anti-aliased coverage (N, S, S) in [0, 1]; all shapes of one radius have the area of the circle."""
    pixels = np.arange(SIDE) + 0.5
    x = pixels[None, None, :] - centre_x[:, None, None]
    y = pixels[None, :, None] - centre_y[:, None, None]
    circle = np.hypot(x, y) - radius[:, None, None]
    half_side = np.sqrt(np.pi) / 2 * radius[:, None, None]
    square = np.maximum(np.abs(x), np.abs(y)) - half_side
    inner = np.sqrt(np.pi / (3 * np.sqrt(3.0))) * radius[:, None, None]
    triangle = np.maximum(y, np.abs(x) * np.sqrt(3.0) / 2 - y / 2) - inner
    distance = np.choose(shape[:, None, None], [circle, square, triangle])
    return np.clip(0.5 - distance, 0.0, 1.0)


def read_shapes(images: Floats) -> Reading:
    """Measure factors on images (N, 3, S, S) in [0, 1].

    An image is valid with one connected patch that stands off the ground, of one colour that is full and bright, and of
    plausible area, whose outline overlaps the nearest ideal shape of that area and place by at least ``LEAST_OVERLAP``.
    """
    contrast = np.sqrt(((images - BACKGROUND) ** 2).sum(1))
    peak = np.quantile(contrast, 0.985, axis=(1, 2))
    cover = np.clip(contrast / np.maximum(peak, 1e-6)[:, None, None], 0, 1)
    single = np.array([_is_single(patch) for patch in cover > 0.5], dtype=bool)
    cover = np.where(cover < 0.15, 0.0, cover)
    area = cover.sum((1, 2))
    safe = np.maximum(area, 1e-6)
    pixels = np.arange(SIDE) + 0.5
    centre_x = (cover.sum(1) * pixels).sum(1) / safe
    centre_y = (cover.sum(2) * pixels).sum(1) / safe
    radius = np.sqrt(area / np.pi)
    overlap = np.stack([_overlap(cover, kind, radius, centre_x, centre_y) for kind in range(len(SHAPES))])
    core = cover * (cover > 0.7)
    colour = (images * core[:, None]).sum((2, 3)) / np.maximum(core.sum((1, 2)), 1e-6)[:, None]
    hue = rgb_to_hue(colour)
    factors: dict[str, Ints] = {
        "shape": overlap.argmax(0),
        "hue": np.rint(hue * NUM_HUES).astype(np.int64) % NUM_HUES,
        "size": _nearest(radius, RADII),
        "place_x": _nearest(centre_x, PLACES),
        "place_y": _nearest(centre_y, PLACES),
    }
    # One shape has one colour: what its inside differs by from that colour laid over the ground, so that soft edges do
    # not count, as the root of the mean squared distance.
    painted = BACKGROUND + cover[:, None] * (colour[:, :, None, None] - BACKGROUND)
    deviation = ((images - painted) ** 2).sum(1) * core
    spread = np.sqrt(deviation.sum((1, 2)) / np.maximum(core.sum((1, 2)), 1e-6))
    pure = np.sqrt(((colour - hue_to_rgb(hue)) ** 2).sum(1)) < MOST_COLOUR_ERROR
    plausible = (area > SMALLEST_AREA) & (area < LARGEST_AREA) & (peak > LEAST_CONTRAST) & (spread < MOST_COLOUR_SPREAD)
    return Reading(factors, single & plausible & pure & (overlap.max(0) > LEAST_OVERLAP), hue)


def _is_single(patch: NDArray[np.bool_]) -> bool:
    """One connected patch; specks of a few pixels beside it do not count as shapes."""
    labelled, count = ndimage.label(patch)
    if not count:
        return False
    sizes = np.bincount(labelled.ravel())[1:]
    return int((sizes > SPECK_PIXELS).sum()) == 1


def _overlap(cover: Floats, kind: int, radius: Floats, centre_x: Floats, centre_y: Floats) -> Floats:
    """Intersection over union (N,) of the coverage with an ideal shape."""
    ideal = draw(np.full(len(cover), kind), radius, centre_x, centre_y)
    union = np.maximum(cover, ideal).sum((1, 2))
    return np.minimum(cover, ideal).sum((1, 2)) / np.maximum(union, 1e-6)


def _nearest(values: Floats, centres: tuple[float, ...]) -> Ints:
    return np.abs(values[:, None] - np.array(centres)).argmin(1).astype(np.int64)


def histograms(factors: dict[str, Ints]) -> dict[str, list[float]]:
    """Share of each bin of each factor."""
    return {name: (np.bincount(bins, minlength=FACTORS[name]) / max(len(bins), 1)).tolist() for name, bins in factors.items()}


def metric_texts() -> dict[str, str]:
    """How each metric of the shapes is measured, in a few words."""
    texts = {"valid_share": "share of images with one shape of one full colour and a known outline"}
    for name in FACTORS:
        texts[f"factor_tv/{name}"] = "total variation of the factor among valid images from the corpus's histogram"
    texts["hue_between"] = f"share of valid images whose hue is over {HUE_TOLERANCE} turns from each of the {NUM_HUES} hues"
    return texts | {"shape_as_asked": "share of all images that are valid and have the shape that was asked for"}


def shapes_metrics(images: Floats, corpus: dict[str, Any], labels: Ints | None = None) -> dict[str, float]:
    """Valid share, total variation of each factor against the corpus's histograms, and the share drawn as asked.

    A factor's bin is the nearest, so ``hue_between`` tells what the histograms cannot: the share of valid images whose
    hue lies between the corpus's hues.
    """
    reading = read_shapes(images)
    found = histograms({name: bins[reading.valid] for name, bins in reading.factors.items()})
    result = {"valid_share": float(reading.valid.mean())}
    for name, shares in corpus.items():
        distance = 0.5 * float(np.abs(np.array(found[name]) - np.array(shares)).sum())
        result[f"factor_tv/{name}"] = distance if reading.valid.any() else 1.0
    turns = reading.hue[reading.valid] * NUM_HUES
    gap = np.abs(turns - np.rint(turns)) / NUM_HUES
    result["hue_between"] = float((gap > HUE_TOLERANCE).mean()) if len(gap) else 1.0
    if labels is not None:
        result["shape_as_asked"] = float(((reading.factors["shape"] == labels) & reading.valid).mean())
    return result

"""The points modality: data, networks, noise, metrics and files. B batch, M modes of the mixture."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from advgen import ArraySource, Batch, Corpus, DataError, DataRequest, Judge, Modality, Mode, content_hash, split_indices
from advgen_points.config import PointsConfig
from advgen_points.networks import PointsDiscriminator, PointsGenerator

HIGH_QUALITY_RADIUS = 3.0
"""A point is of high quality when it lies within so many standard deviations of a mode."""
CEILING = 1.0 - math.exp(-(HIGH_QUALITY_RADIUS**2) / 2)
"""The share of high quality of the mixture itself: P(r < 3 std) in the plane is 0.9889."""
STANDARD_DEVIATION = {"ring": 0.01, "grid": 0.05}
PICTURE_PIXELS = 512


def mode_centres(mode: str) -> list[list[float]]:
    """Centres of the Gaussians: ring, 8 on the unit circle; grid, 25 at {-4, -2, 0, 2, 4} squared.

    Source: Lin et al. 2018 (PacGAN), https://arxiv.org/abs/1712.04086
    """
    if mode == "ring":
        return [[math.cos(2 * math.pi * i / 8), math.sin(2 * math.pi * i / 8)] for i in range(8)]
    axis = (-4.0, -2.0, 0.0, 2.0, 4.0)
    return [[x, y] for x in axis for y in axis]


def draw_mixture(mode: str, num_points: int, generator: torch.Generator) -> Tensor:
    """(num_points, 2) points of the mixture, every mode equally likely."""
    centres = torch.tensor(mode_centres(mode))
    which = torch.randint(len(centres), (num_points,), generator=generator)
    return centres[which] + STANDARD_DEVIATION[mode] * torch.randn(num_points, 2, generator=generator)


def parse_row(row: list[str], where: str) -> list[float]:
    """Two finite numbers of one CSV row.

    Raises:
        DataError: naming the file and the line.
    """
    try:
        point = [float(cell) for cell in row]
    except ValueError as error:
        raise DataError(f"{where}: {','.join(row)!r} is not a point; expected two numbers separated by a comma") from error
    if len(point) != 2 or not all(map(math.isfinite, point)):
        raise DataError(f"{where}: {','.join(row)!r} is not a point; expected two finite numbers separated by a comma")
    return point


def is_header(row: list[str]) -> bool:
    """Whether a first row names columns: no cell is a number."""
    return not any(cell.strip().lstrip("+-")[:1].isdigit() or cell.strip().lstrip("+-").startswith(".") for cell in row)


def read_points(path: Path, max_bad: int) -> tuple[Tensor, tuple[str, ...]]:
    """(N, 2) float32 points of a CSV file, and what was wrong with the rows left out.

    Raises:
        DataError: where the file cannot be read, holds no point, or more than ``max_bad`` rows are bad.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}; expected a CSV file of two columns") from error
    points: list[list[float]] = []
    bad: list[str] = []
    for number, row in enumerate(rows, start=1):
        if not row or (number == 1 and is_header(row) and "nan" not in [cell.strip().lower() for cell in row]):
            continue
        try:
            points.append(parse_row(row, f"{path}, line {number}"))
        except DataError as error:
            bad.append(str(error))
    if len(bad) > max_bad:
        raise DataError(f"{len(bad)} rows are bad, more than the {max_bad} allowed (--max-bad). First: {bad[0]}")
    if not points:
        raise DataError(f"{path} holds no points; expected rows of two numbers separated by a comma")
    return torch.tensor(points), tuple(bad)


def embedded_corpus(config: PointsConfig, seed: int) -> Corpus:
    """The ring or the grid: ``num_points`` to train on, a tenth of that (at least 2,500) to validate and to test."""
    generator = torch.Generator().manual_seed(seed)
    num_held_out = max(2_500, config.num_points // 10)
    sizes = {"train": config.num_points, "validation": num_held_out, "test": num_held_out}
    splits = {name: draw_mixture(config.mode, size, generator) for name, size in sizes.items()}
    centres = mode_centres(config.mode)
    facts = {
        "centres": centres,
        "standard_deviation": STANDARD_DEVIATION[config.mode],
        "scale": max(abs(coordinate) for centre in centres for coordinate in centre),
    }
    fingerprint = content_hash(points.numpy().tobytes() for points in splits.values())
    return Corpus(facts, {name: ArraySource(points) for name, points in splits.items()}, fingerprint)


def file_corpus(request: DataRequest, path: Path) -> Corpus:
    """The points of a CSV file, split by a hash of each row's number and content. Its modes are not known."""
    points, bad = read_points(path, request.max_bad)
    keys = [f"{index}:{x!r},{y!r}" for index, (x, y) in enumerate(points.tolist())]
    splits = {name: ArraySource(points[indices]) for name, indices in split_indices(keys, request).items()}
    facts = {"centres": [], "standard_deviation": 0.0, "scale": points.abs().max().item() or 1.0}
    return Corpus(facts, splits, content_hash([points.numpy().tobytes()]), bad)


class CoordinatesJudge:
    """The two coordinates are the features: there is nothing to learn."""

    name = "coordinates"

    def features(self, batch: Batch) -> Tensor:
        """(N, 2) the points themselves."""
        return batch.values

    def classify(self, batch: Batch) -> Tensor | None:
        """None: points have no labels."""
        return None


def mixture_metrics(points: Tensor, centres: Tensor, standard_deviation: float) -> dict[str, float]:
    """Modes found, share of high quality and reverse KL of points (B, 2) against modes (M, 2).

    ``modes_found`` counts modes that are nearest to at least one point of high quality; ``reverse_kl`` is the
    divergence, in nats, of the histogram of those points over the modes from the uniform one: 0 is perfect,
    log M is one mode, and about (M - 1) / 2B is what B true points score. Without any good point it is log M.

    Source: Lin et al. 2018 (PacGAN), https://arxiv.org/abs/1712.04086
    """
    distance, nearest = torch.cdist(points, centres).min(dim=1)
    good = distance < HIGH_QUALITY_RADIUS * standard_deviation
    counts = torch.bincount(nearest[good], minlength=len(centres)).double()
    share = counts / counts.sum().clamp(min=1)
    surprise = torch.xlogy(share, share * len(centres)).sum()
    return {
        "modes_found": float((counts > 0).sum()),
        "high_quality": float(good.double().mean()),
        "high_quality_ceiling": CEILING,
        "reverse_kl": float(surprise) if counts.sum() else math.log(len(centres)),
    }


def draw_scatter(points: Tensor) -> Image.Image:
    """A square picture of points (B, 2) that spans [-1.2, 1.2] in both directions, y upwards."""
    picture = Image.new("RGB", (PICTURE_PIXELS, PICTURE_PIXELS), "white")
    pencil = ImageDraw.Draw(picture)
    for x, y in ((points / 2.4 + 0.5) * PICTURE_PIXELS).tolist():
        if math.isfinite(x) and math.isfinite(y):
            pencil.rectangle((x - 1, PICTURE_PIXELS - y - 1, x + 1, PICTURE_PIXELS - y + 1), fill=(31, 119, 180))
    return picture


class PointsModality(Modality[PointsConfig]):
    """Everything the core must know of points."""

    overview_samples = 2_000
    one_file = normal_noise = True

    @classmethod
    def read(cls, config: PointsConfig, request: DataRequest) -> Corpus:
        """The mixture that ``mode`` names, or the points of a CSV file."""
        if request.path is None:
            return embedded_corpus(config, request.seed)
        return file_corpus(request, request.path)

    def generator(self) -> PointsGenerator:
        """A fresh generator."""
        return PointsGenerator(self.config.noise_size, self.config.width, self.config.depth)

    def discriminator(self) -> PointsDiscriminator:
        """A fresh discriminator."""
        return PointsDiscriminator(self.config.width, self.config.depth)

    def noise(self, num_samples: int, generator: torch.Generator, *, mode: Mode = "values") -> Tensor:
        """(B, Z) standard normal noise."""
        return torch.randn(num_samples, self.config.noise_size, generator=generator)

    def prepare(self, batch: Batch) -> Batch:
        """Points in the file's units to about [-1, 1]."""
        return Batch(batch.values / self.facts["scale"], batch.mask, batch.condition)

    def judge(self, corpus: Corpus, cache: Path) -> Judge:
        """The coordinates, untrained."""
        return CoordinatesJudge()

    def metrics(self, generated: Batch, held_out: Batch) -> dict[str, float]:
        """How the generated points cover the mixture; nothing where the modes are not known."""
        if not self.facts["centres"]:
            return {}
        centres = torch.tensor(self.facts["centres"])
        return mixture_metrics(self.original_units(generated), centres, self.facts["standard_deviation"])

    def original_units(self, batch: Batch) -> Tensor:
        """(B, 2) points of a prepared batch in the data's own units, on the CPU."""
        return batch.values.detach().cpu().float() * float(self.facts["scale"])

    def write(self, batch: Batch, folder: Path, *, start: int = 0) -> list[Path]:
        """samples.csv with one row a point; a batch that starts later is appended."""
        path = folder / "samples.csv"
        with path.open("w" if start == 0 else "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if start == 0:
                writer.writerow(("x", "y"))
            writer.writerows(self.original_units(batch).tolist())
        return [path]

    def overview(self, batch: Batch, stem: Path) -> list[Path]:
        """A scatter plot as PNG."""
        path = Path(f"{stem}.png")
        draw_scatter(batch.values.detach().cpu()).save(path)
        return [path]

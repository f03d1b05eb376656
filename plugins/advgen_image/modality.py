"""The image modality: what the core must know of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from advgen import (
    Batch,
    Corpus,
    DataReport,
    DataRequest,
    Discriminator,
    Generator,
    GenError,
    Judge,
    MetricNote,
    Modality,
    Mode,
    Show,
)
from advgen_image.augmentation import augmented
from advgen_image.config import ImageConfig
from advgen_image.data import read_corpus
from advgen_image.facts import check_facts
from advgen_image.families import make_discriminator, make_generator
from advgen_image.files import write_animation, write_grid, write_images
from advgen_image.inception_features import load_inception
from advgen_image.inspection import inspect_images
from advgen_image.judge import train_judge
from advgen_image.networks import ImageShape, choose_depth
from advgen_image.shapes import metric_texts, shapes_metrics
from advgen_image.single import read_one

BLOCK = 16
GAMMA_PER_PIXEL = 0.0002


class ImageModality(Modality[ImageConfig]):
    """Images (B, C, H, W) in [-1, 1], with a ``label`` (B,) where the data has classes."""

    formats = MappingProxyType({"png": "8 or 16 bits a channel, as the data"})
    animations = MappingProxyType({"gif": "256 colours a frame", "apng": "as PNG, with all colours"})
    normal_noise = mixed_labels = True
    feature_spaces = MappingProxyType({"inception": "Inception v3, in which published distances of images are measured"})

    def __init__(self, config: ImageConfig, facts: Mapping[str, Any]) -> None:
        super().__init__(config, facts)
        check_facts(facts)
        height, width = facts["height"], facts["width"]
        self.depth = choose_depth(height, width, config.depth)
        num_classes = len(facts["classes"]) if config.conditional else 0
        self.shape = ImageShape(facts["channels"], height, width, num_classes)

    def data_summary(self) -> dict[str, str | int | float]:
        """Return size, channels and depth."""
        shape = self.shape
        return {"size": f"{shape.width}x{shape.height} pixels", "channels": shape.channels, "bits": self.facts.get("bits", 8)}

    @classmethod
    def read(cls, config: ImageConfig, request: DataRequest) -> Corpus:
        """The embedded shapes, idx files or a folder of images."""
        corpus = read_corpus(config, request)
        choose_depth(corpus.facts["height"], corpus.facts["width"], config.depth)
        return corpus

    @classmethod
    def inspect(cls, config: ImageConfig, request: DataRequest, show: Show) -> DataReport:
        """Sizes, kinds, and what cannot be read."""
        return inspect_images(config, request, show)

    def generator(self) -> Generator:
        """A generator of the family ``options.family`` that fits the data's size."""
        return make_generator(self.config, self.shape, self.depth)

    def discriminator(self) -> Discriminator:
        """A discriminator of the same family, behind the augmentation where there is one."""
        return augmented(make_discriminator(self.config, self.shape, self.depth), self.config)

    def noise(self, num_samples: int, generator: torch.Generator, *, mode: Mode = "values") -> Tensor:
        """(B, Z) standard normal noise; the first rows do not depend on how many follow."""
        # Normal numbers are drawn in blocks of 16: whole blocks keep a row's values free of the rows after it.
        padded = -(-self.config.noise_size // BLOCK) * BLOCK
        return torch.randn(num_samples, padded, generator=generator)[:, : self.config.noise_size].contiguous()

    def condition(self, num_samples: int, generator: torch.Generator, *, label: int | None = None) -> dict[str, Tensor]:
        """Labels drawn as in the data; none for an unconditional model."""
        if self.config.conditional:
            return super().condition(num_samples, generator, label=label)
        if label is not None:
            raise GenError(f"class {label} was asked of an unconditional model; train with options.conditional true")
        return {}

    def prepare(self, batch: Batch) -> Batch:
        """uint8, or 16 bit held as int32, to float32 in [-1, 1]; floats pass."""
        if batch.values.is_floating_point():
            return batch
        half = 127.5 if batch.values.dtype == torch.uint8 else 32767.5
        return Batch(batch.values.float() / half - 1.0, batch.mask, batch.condition)

    def automatic_weight(self, penalty: str, batch_size: int) -> float:
        """gamma of R1 and R2 from pixels and batch, 0.0002 H W / B.

        Source: Karras et al. 2020 (ADA), https://arxiv.org/abs/2006.06676
        """
        if penalty not in ("r1", "r2"):
            return super().automatic_weight(penalty, batch_size)
        return GAMMA_PER_PIXEL * self.shape.height * self.shape.width / batch_size

    def against_overfitting(self) -> str:
        """Augmentation first, and what is left where it is on."""
        if self.config.augment == "none":
            return "start anew with --options.augment diffaugment or ada, or with more images (docs/image.md, few data)"
        return "bring more images, or add --set penalties.lecam.weight=0.3 (docs/image.md, few data)"

    def judge(self, corpus: Corpus, cache: Path) -> Judge:
        """A small classifier of the data's classes, or an autoencoder."""
        shape = ImageShape(self.shape.channels, self.shape.height, self.shape.width, len(self.facts["classes"]))
        return train_judge(corpus, shape, self.prepare, cache)

    def feature_space(self, name: str, cache: Path, weights: Path | None, device: torch.device) -> Judge:
        """Inception, with weights from a file, the cache or the network."""
        return load_inception(cache, weights, device)

    def write(self, batch: Batch, folder: Path, *, start: int = 0) -> list[Path]:
        """One PNG per sample."""
        return write_images(batch.values, folder, start=start, bits=self.facts["bits"])

    def overview(self, batch: Batch, stem: Path) -> list[Path]:
        """One PNG with all samples in a grid."""
        return write_grid(batch.values, stem)

    def table(self, batch: Batch, columns: int, stem: Path, *, blank: int = 0) -> list[Path]:
        """The same with so many columns, after ``blank`` empty places."""
        return write_grid(batch.values, stem, columns=columns, blank=blank)

    def animate(self, frames: Sequence[Batch], stem: Path, kind: str) -> list[Path]:
        """A GIF or an animated PNG that repeats for ever."""
        return write_animation([frame.values for frame in frames], stem, kind)

    def read_sample(self, path: Path) -> tuple[Batch, list[str]]:
        """One image file, upright, scaled and cropped to the size of the data."""
        return read_one(path, self.facts)

    def reading_alike(self) -> ImageConfig:
        """The size and the channels of the data; nothing random."""
        height, width, channels = self.shape.height, self.shape.width, self.shape.channels
        return ImageConfig(image_height=height, image_width=width, channels=channels)

    def metric_notes(self) -> dict[str, MetricNote]:
        """How the shapes' metrics are measured, and which way they are better."""
        texts = metric_texts() if self.facts["corpus"] == "shapes" else {}
        higher = ("valid_share", "shape_as_asked")
        return {name: MetricNote(text, "higher" if name in higher else "lower") for name, text in texts.items()}

    def metrics(self, generated: Batch, held_out: Batch) -> dict[str, float]:
        """For the embedded shapes: factors read back from the images; nothing for other data."""
        if self.facts["corpus"] != "shapes":
            return {}
        images = (generated.values.detach().double().cpu().numpy() + 1) / 2
        label = generated.condition.get("label")
        return shapes_metrics(images, self.facts["factors"], None if label is None else label.cpu().numpy())

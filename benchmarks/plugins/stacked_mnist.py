"""StackedMNIST as a plugin: three digits in the channels of one image, 1,000 modes. Legend: N images, H, W sides.

    gen train --plugin benchmarks/plugins/stacked_mnist.py --data mnist/ --minutes 30

The digits of both parts of MNIST (70,000) are stacked at random once, the same for every run: 128,000 triples to train on, as
in PacGAN (https://arxiv.org/abs/1712.04086), then 2,000 to validate and 26,000 as real data to score. Only the triples are
held; pixels are put together as they are asked for. Networks, presets and options are those of the image plugin.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from advgen import Batch, Corpus, DataError, DataRequest, PluginSpec, content_hash, hookimpl
from advgen_image import MNIST
from advgen_image.config import ImageConfig
from advgen_image.idx import read_idx
from advgen_image.modality import ImageModality
from advgen_image.presets import PRESETS

SIZES = {"train": 128_000, "validation": 2_000, "test": 26_000}
STACK_SEED = 0


class StackedConfig(ImageConfig):
    """The image plugin's options, and how many images are stacked."""

    num_stacked: int = Field(SIZES["train"], ge=1, description="Stacked images to train on.")


@dataclass
class StackedSource:
    """A split: digits (D, H, W) uint8, and which three (N, 3) make up an image."""

    digits: Tensor
    triples: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.triples)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """(B, 3, H, W) uint8, without labels: nobody is to know the mode."""
        return Batch(self.digits[self.triples[indices]])

    def modes(self) -> Tensor:
        """(N,) int64 true mode of each image, 0 to 999; what the digits' own labels say."""
        if self.labels is None:
            raise DataError("the digits have no labels; put the label files of MNIST beside the image files")
        return as_modes(self.labels[self.triples])


def as_modes(digits: Tensor) -> Tensor:
    """(N, 3) classes of the channels -> (N,) number of the mode."""
    return digits @ torch.tensor([100, 10, 1])


class StackedModality(ImageModality):
    """Images (B, 3, H, W) in [-1, 1], unconditional."""

    @classmethod
    def read(cls, config: StackedConfig, request: DataRequest) -> Corpus:
        """Stack the digits of a folder of idx files."""
        if request.path is None:
            raise DataError("stacked digits need the idx files of MNIST; give --data FOLDER or --data mnist")
        found = read_idx(request.path, config)
        if found.values.shape[1] != 1:
            raise DataError(f"{request.path} holds images of {found.values.shape[1]} channels, expected grey digits")
        digits = torch.from_numpy(found.values[:, 0])
        labels = None if found.labels is None else torch.from_numpy(found.labels)
        random = torch.Generator().manual_seed(STACK_SEED)
        sizes = SIZES | {"train": config.num_stacked}
        drawn = torch.randint(len(digits), (sum(sizes.values()), 3), generator=random)
        # Held-out triples come first, so that they are the same for every number of training images.
        validation, test, train = drawn.split([sizes["validation"], sizes["test"], sizes["train"]])
        parts = {"train": train, "validation": validation, "test": test}
        facts = {"height": digits.shape[1], "width": digits.shape[2], "channels": 3, "bits": 8, "classes": []}
        fingerprint = content_hash([b"stacked", found.fingerprint.encode(), repr((STACK_SEED, sizes)).encode()])
        splits = {name: StackedSource(digits, triples, labels) for name, triples in parts.items()}
        return Corpus(facts | {"class_counts": [], "corpus": "stacked"}, splits, fingerprint)


@hookimpl
def advgen_register() -> PluginSpec:
    """Declare the plugin."""
    return PluginSpec(
        name="stacked_mnist",
        summary="Three MNIST digits in one image: 1,000 modes.",
        config="stacked_mnist:StackedConfig",
        modality="stacked_mnist:StackedModality",
        datasets={"mnist": MNIST},
        presets=PRESETS,
    )

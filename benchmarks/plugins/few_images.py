"""The image plugin with few training images: a random subset of the train split; what is held out stays whole.

    gen train --plugin benchmarks/plugins/few_images.py --data photos/ --options.keep 100

Subsets are fixed by ``keep_seed``, and a smaller one is part of each larger one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from pydantic import Field
from torch import Tensor

from advgen import Batch, Corpus, DataError, DataRequest, PluginSpec, Source, content_hash, hookimpl
from advgen_image import MNIST
from advgen_image.config import ImageConfig
from advgen_image.modality import ImageModality
from advgen_image.presets import PRESETS


class FewConfig(ImageConfig):
    """The image plugin's options, and how many images are kept."""

    keep: int = Field(100, ge=2, description="Training images that are kept.")
    keep_seed: int = Field(0, ge=0, description="Which ones.")


@dataclass
class SubsetSource:
    """Some rows (N,) of another source."""

    source: Source
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """The chosen rows at ``indices``."""
        return self.source.batch(self.rows[indices], generator)


def subset(corpus: Corpus, keep: int, seed: int) -> Corpus:
    """The corpus with so many of its training images.

    Raises:
        DataError: where there are fewer.
    """
    train = corpus.splits["train"]
    if keep > len(train):
        raise DataError(f"options.keep={keep}: the train split holds {len(train)} images; keep at most those")
    rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:keep]
    few, facts = SubsetSource(train, rows), dict(corpus.facts)
    if facts["classes"]:
        label = few.batch(torch.arange(keep), torch.Generator()).condition["label"]
        facts["class_counts"] = torch.bincount(label, minlength=len(facts["classes"])).tolist()
    fingerprint = content_hash([corpus.fingerprint.encode(), repr((keep, seed)).encode()])
    return replace(corpus, facts=facts, splits={**corpus.splits, "train": few}, fingerprint=fingerprint)


class FewModality(ImageModality):
    """Images (B, C, H, W) in [-1, 1]."""

    @classmethod
    def read(cls, config: FewConfig, request: DataRequest) -> Corpus:
        """As the image plugin reads, with a subset to train on."""
        return subset(super().read(config, request), config.keep, config.keep_seed)


@hookimpl
def advgen_register() -> PluginSpec:
    """Declare the plugin."""
    return PluginSpec(
        name="few_images",
        summary="A fixed random subset of a data set's training images.",
        config="few_images:FewConfig",
        modality="few_images:FewModality",
        datasets={"mnist": MNIST},
        presets=PRESETS,
    )

"""What a user may choose of how samples are compared with real ones: features, real split, neighbours, blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from advgen.cache import cache_folder
from advgen.contracts import Judge, Modality
from advgen.errors import ConfigError, nearest
from advgen.metrics.features import KERNEL, kernel_over_blocks
from advgen.metrics.neighbours import NEIGHBOURS

TEST, TRAIN = "test", "train"


@dataclass(frozen=True)
class FeatureSpace:
    """Published features that a user asks for in place of the judge, and the file of their weights."""

    name: str | None
    weights: Path | None = None

    def judge(self, modality: Modality[Any], device: torch.device) -> Judge:
        """The network of these features.

        Raises:
            ConfigError: where the modality has no such features, or only weights were named.
        """
        known = modality.feature_spaces
        if self.name is None:
            raise ConfigError(f"--weights {self.weights}: the judge of the data takes none; say --features NAME too")
        if self.name not in known:
            raise ConfigError(f"--features {self.name}: {_listed(modality)}; leave --features out for the judge of the data")
        return modality.feature_space(self.name, cache_folder(), self.weights, device)


def _listed(modality: Modality[Any]) -> str:
    known = modality.feature_spaces
    if not known:
        return "the plugin has none"
    return "known: " + "; ".join(f"{name} ({about})" for name, about in known.items())


@dataclass(frozen=True)
class Comparison:
    """The protocol of the metrics on features; as it is, the one of ``gen evaluate RUN``.

    Args:
        space: published features; None: those of the judge of the data.
        reference: the real split that samples are compared with, ``test`` or ``train`` (as in most published tables); samples
            of the other one take the generator's place in the column real.
        neighbours: k of precision, recall, density and coverage.
        kid_block: the kernel distance is the mean over blocks of so many samples (published: 1,000); None: of whole sets.

    Raises:
        ConfigError: where one of them cannot be.
    """

    space: FeatureSpace | None = None
    reference: str = TEST
    neighbours: int = NEIGHBOURS
    kid_block: int | None = None

    def __post_init__(self) -> None:
        if self.reference not in (TEST, TRAIN):
            raise ConfigError(f"--reference {self.reference}: {nearest(self.reference, (TEST, TRAIN))}")
        if self.neighbours < 1:
            raise ConfigError(f"--neighbours {self.neighbours}: expected 1 or more, such as the default {NEIGHBOURS}")
        if self.kid_block is not None and self.kid_block < 2:
            raise ConfigError(f"--kid-block {self.kid_block}: expected 2 or more samples, such as 1000; or leave it out")

    def within(self, features: str | None, weights: Path | str | None) -> Comparison:
        """The same in the published features that are asked for, if any are."""
        if features is None and weights is None:
            return self
        return replace(self, space=FeatureSpace(features, None if weights is None else Path(weights)))

    @property
    def column(self) -> str:
        """The split whose samples take the generator's place in the column real."""
        return TRAIN if self.reference == TEST else TEST

    @property
    def need(self) -> tuple[str, str]:
        """How many samples there must be, and a way out besides more of them; for refusals."""
        need = f"the metrics need more than {self.neighbours} samples for {self.neighbours} neighbours"
        return need, ", or take fewer --neighbours" if self.neighbours > NEIGHBOURS else ""

    @property
    def kernel(self) -> str:
        """How the kernel distance is computed."""
        return KERNEL if self.kid_block is None else kernel_over_blocks(self.kid_block)


USUAL = Comparison()

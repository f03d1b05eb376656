"""Real samples of a split and their features: what generated ones are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advgen.contracts import Batch, Corpus, Judge, Modality, Source
from advgen.errors import DataError, nearest
from advgen.metrics.judging import BLOCK
from advgen.metrics.kept import pooled_features

MAX_SAMPLES = 2000


def real_samples(modality: Modality[Any], corpus: Corpus, split: str, *, seed: int = 0, limit: int = MAX_SAMPLES) -> Batch:
    """Up to ``limit`` samples of a split, drawn without replacement by the seed alone, in the prepared scale on the CPU."""
    return Batch.cat(list(_real_blocks(modality, corpus, split, seed, limit)))


def pool_features(
    modality: Modality[Any], corpus: Corpus, split: str, judge: Judge, *, seed: int, limit: int, cache: Path
) -> Tensor:
    """(M, F) features of the samples that ``real_samples`` draws, which are never all in memory; kept in the cache."""
    return pooled_features(judge, lambda: _real_blocks(modality, corpus, split, seed, limit), cache)


def _real_blocks(modality: Modality[Any], corpus: Corpus, split: str, seed: int, limit: int) -> Iterator[Batch]:
    source = split_of(corpus, split)
    random = torch.Generator().manual_seed(seed)
    for indices in torch.randperm(len(source), generator=random)[:limit].split(BLOCK):
        with torch.no_grad():
            yield modality.prepare(source.batch(indices, random)).to("cpu")


def split_of(corpus: Corpus, split: str) -> Source:
    """A split that holds something.

    Raises:
        DataError: where it is not there or empty.
    """
    if split not in corpus.splits:
        raise DataError(f"the data has no split {split!r}; {nearest(split, corpus.splits)}")
    if not len(corpus.splits[split]):
        raise DataError(f"the {split} split is empty; bring more data or raise data.{split}_share")
    return corpus.splits[split]

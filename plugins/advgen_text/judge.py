"""Features of text for distances between samples: hashed n-grams through a fixed random projection, nothing to train."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from advgen import Batch, Corpus

from .generators.drawing import written
from .tokenizer import Tokenizer

BUCKETS, FEATURES, ORDERS, SEED = 16_384, 64, (1, 2, 3), 20_240_901
BLOCK = 2048


class TextJudge:
    """Features (N, 64) of what follows the prompts: the projected, length-normalised histogram of word 1-, 2- and 3-grams.

    With labels, the class whose mean training features lie nearest.
    """

    name = "hashed-ngram-random-projection"

    def __init__(self, tokenizer: Tokenizer, corpus: Corpus) -> None:
        self._tokenizer = tokenizer
        generator = torch.Generator().manual_seed(SEED)
        self._projection = torch.randn(BUCKETS, FEATURES, generator=generator)
        self.protocol = {
            "layer": f"a projection to {FEATURES} numbers of word 1-, 2- and 3-grams in {BUCKETS} buckets by CRC-32, "
            "divided by the root of how many there are",
            "weights": f"sha256 {hashlib.sha256(self._projection.numpy().tobytes()).hexdigest()}",
        }
        self._centres = self._class_centres(corpus) if corpus.facts.get("classes") else None

    def features(self, batch: Batch) -> Tensor:
        """(N, 64) float32; sentences of the same n-grams have the same features."""
        words = self._tokenizer.words(written(batch).cpu())
        return torch.stack([self._project(line) for line in words]) if words else torch.zeros(0, FEATURES)

    def classify(self, batch: Batch) -> Tensor | None:
        """(N,) int64 nearest class, or None without labels."""
        if self._centres is None:
            return None
        return torch.cdist(self.features(batch), self._centres).argmin(1)

    def _project(self, words: Sequence[str]) -> Tensor:
        buckets = hashed(words)
        if not buckets:
            return torch.zeros(FEATURES)
        return self._projection.index_select(0, torch.tensor(buckets)).sum(0).div(len(buckets) ** 0.5)

    def _class_centres(self, corpus: Corpus) -> Tensor:
        train, classes = corpus.splits["train"], corpus.facts["classes"]
        total, count = torch.zeros(len(classes), FEATURES), torch.zeros(len(classes), 1)
        for start in range(0, len(train), BLOCK):
            batch = train.batch(torch.arange(start, min(start + BLOCK, len(train))), torch.Generator())
            label = batch.condition["label"]
            total.index_add_(0, label, self.features(batch))
            count.index_add_(0, label, torch.ones(len(batch), 1))
        return total / count.clamp(min=1)


def hashed(words: Sequence[str]) -> list[int]:
    """The bucket of every n-gram of a sentence."""
    marked = ["<", *words, ">"]
    grams = (marked[start : start + order] for order in ORDERS for start in range(len(marked) - order + 1))
    return [zlib.crc32(" ".join(gram).encode()) % BUCKETS for gram in grams]

"""The convolutional critics: one score a sentence, and one for each of many representations of it.

Legend: B batch, L tokens, E embedding, R representations.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from advgen import Verdict

from ..generators.drawing import longest
from .base import Highway, Reader, Sight, Windows, visible

SEQGAN = {1: 100, 2: 200, 3: 200, 4: 200, 5: 200, 6: 100, 7: 100, 8: 100, 9: 100, 10: 100, 15: 160, 20: 160}
"""Filters by size, as published for sentences of 20 tokens."""
RELGAN = {2: 300, 3: 300, 4: 300, 5: 300}
"""Filters by size, as published."""


def scaled(filters: Mapping[int, int], share: float, longest_size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes up to ``longest_size``, and a share of their counts, at least one each."""
    chosen = {size: max(1, round(count * share)) for size, count in filters.items() if size <= max(longest_size, min(filters))}
    return tuple(chosen), tuple(chosen.values())


class ConvolutionalCritic(Reader):
    """embeddings (B, L, E), each of norm 1 -> one logit a sentence (B,).

    Filters of twelve sizes, the largest answer of each over the sentence, a highway layer, dropout, one linear layer.

    Source: Yu et al. 2017 (SeqGAN), https://arxiv.org/abs/1609.05473; Kim 2014, https://arxiv.org/abs/1408.5882

    Args:
        sight: what it sees.
        length: most tokens; larger filters are left out.
        share: of the published number of filters.
    """

    def __init__(self, sight: Sight, *, length: int, share: float = 1.0) -> None:
        super().__init__(sight)
        sizes, counts = scaled(SEQGAN, share, length)
        self.windows, self.highway = Windows(sight.embedding, sizes, counts), Highway(sum(counts))
        self.drop, self.score = nn.Dropout(sight.dropout), nn.Linear(sum(counts), 1)

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        """One head of logits (B,)."""
        text = visible(mask, condition, seen)
        width = longest(text)
        found = self.windows(self.inputs(seen[:, :width], condition).transpose(1, 2), text[:, :width])
        return Verdict.of(self.score(self.drop(self.highway(found))).squeeze(1))


class MultiCritic(Reader):
    """embeddings (B, L, R), each of norm 1 -> R heads of one logit a sentence (B,).

    One linear map of the vocabulary is read as R representations of a single number a token; the same filters go over each,
    and the same layers score each, so R weak opinions share all weights but the map. A pairing loss pairs real with generated
    row by row and representation by representation.

    Source: Nie et al. 2019 (RelGAN), https://openreview.net/forum?id=rJedV3R5tm, with R = 64

    Args:
        sight: what it sees; its embedding is R.
        length: most tokens; larger filters are left out.
        share: of the published number of filters.
    """

    def __init__(self, sight: Sight, *, length: int, share: float = 1.0) -> None:
        super().__init__(sight)
        sizes, counts = scaled(RELGAN, share, length)
        self.windows, self.highway = Windows(1, sizes, counts), Highway(sum(counts))
        self.drop = nn.Dropout(sight.dropout)
        inner = max(1, round(100 * share))
        self.score = nn.Sequential(nn.Linear(sum(counts), inner), nn.Linear(inner, 1))

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        """R heads of equal weight."""
        text = visible(mask, condition, seen)
        width = longest(text)
        inputs = self.inputs(seen[:, :width], condition).transpose(1, 2)
        each = text[:, :width].repeat_interleave(inputs.shape[1], dim=0)
        found = self.windows(inputs.flatten(0, 1).unsqueeze(1), each)
        scores = self.score(self.drop(self.highway(found))).view(inputs.shape[:2])
        return Verdict.of(*scores.unbind(1))

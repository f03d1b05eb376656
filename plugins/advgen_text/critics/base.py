"""What all critics of text share: what they see of tokens. Legend: B batch, L tokens, V vocabulary, E embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen import Discriminator, Sample

from ..generators.drawing import prompt_mask


@dataclass(frozen=True)
class Sight:
    """What every critic must know.

    Args:
        vocabulary: number of tokens.
        embedding: width of their embeddings.
        num_classes: 0 for unconditional.
        dropout: before the output layers of the convolutional critics.
    """

    vocabulary: int
    embedding: int
    num_classes: int = 0
    dropout: float = 0.0


class Reader(Discriminator):
    """Sees tokens as embeddings (B, L, E) of norm 1, and a class as a learned vector that is added to each."""

    def __init__(self, sight: Sight) -> None:
        super().__init__()
        self.tokens = nn.Embedding(sight.vocabulary, sight.embedding)
        self.labels = nn.Embedding(sight.num_classes, sight.embedding) if sight.num_classes else None

    def embed(self, sample: Sample) -> Tensor:
        """Unit-norm embeddings (B, L, E) of tokens, or the same mixture of them as ``relaxed`` is of tokens.

        A fixed norm keeps gradient penalties at this place meaningful: the critic cannot escape them by scaling.
        """
        table = F.normalize(self.tokens.weight, dim=1, eps=1e-6)
        if sample.relaxed is None:
            return F.embedding(sample.values, table)
        return sample.relaxed.to(table.dtype) @ table

    def inputs(self, seen: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """(B, L, E) brought from norm 1 to entries of variance 1, with the class added."""
        inputs = seen * seen.shape[-1] ** 0.5
        if self.labels is not None and "label" in condition:
            inputs = inputs + self.labels(condition["label"]).unsqueeze(1)
        return inputs


def visible(mask: Tensor | None, condition: Mapping[str, Tensor], seen: Tensor) -> Tensor:
    """(B, L) bool: the places of a sample that hold text, those of its prompt too."""
    if mask is None:
        return torch.ones(seen.shape[:2], dtype=torch.bool, device=seen.device)
    given = prompt_mask(condition, mask)
    return mask if given is None else mask | given


class Highway(nn.Module):
    """x (..., C) -> (..., C): t * relu(linear(x)) + (1 - t) * x with t = sigmoid(linear(x) - 2), so that it starts near x.

    Source: Srivastava et al. 2015, https://arxiv.org/abs/1505.00387
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change, self.gate = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """A gated mixture of x and a layer of it."""
        share = (self.gate(x) - 2.0).sigmoid()
        mixed: Tensor = share * F.relu(self.change(x)) + (1 - share) * x
        return mixed


class Windows(nn.Module):
    """x (N, E, L) with ``mask`` (N, L) -> (N, C): for each filter, its largest answer over all windows that start in the text.

    Past the end of the text a window sees zeros, so what a sentence gives does not depend on how far its batch is padded.
    """

    def __init__(self, embedding: int, sizes: tuple[int, ...], counts: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes
        self.filters = nn.ModuleList([nn.Conv1d(embedding, count, size) for size, count in zip(sizes, counts, strict=True)])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """The largest answers of all sizes side by side."""
        x = torch.where(mask.unsqueeze(1), x, torch.zeros_like(x))
        outside = ~mask.unsqueeze(1)
        found = []
        for layer, size in zip(self.filters, self.sizes, strict=True):
            answers = F.relu(layer(F.pad(x, (0, size - 1))))
            # ReLU leaves nothing below 0, so 0 is as good as no window.
            found.append(answers.masked_fill(outside, 0).amax(dim=2))
        return torch.cat(found, dim=1)

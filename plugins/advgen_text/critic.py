"""The critic: a recurrent network that gives every token a real-or-generated logit.

Legend: B batch, L tokens, V vocabulary, E embedding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen import Discriminator, Sample, Verdict

from .generator import longest


class TextCritic(Discriminator):
    """embeddings (B, L, E), each of norm 1 -> one logit a token (B, L), from that token and those before it.

    Reading left to right makes a token's logit a verdict on what is written so far: a dense reward.
    Source: d'Autume et al. 2019 (ScratchGAN), https://arxiv.org/abs/1905.09922
    """

    def __init__(self, vocabulary: int, *, embedding: int, hidden: int, num_classes: int = 0) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, embedding)
        self.labels = nn.Embedding(num_classes, embedding) if num_classes else None
        self.recurrent = nn.GRU(embedding, hidden, batch_first=True)
        self.score = nn.Sequential(nn.Linear(hidden + embedding, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1))

    def embed(self, sample: Sample) -> Tensor:
        """Unit-norm embeddings (B, L, E) of tokens, or the same mixture of them as ``relaxed`` is of tokens.

        A fixed norm keeps gradient penalties at this place meaningful: the critic cannot escape them by scaling.
        """
        table = F.normalize(self.tokens.weight, dim=1, eps=1e-6)
        if sample.relaxed is None:
            return F.embedding(sample.values, table)
        return sample.relaxed.to(table.dtype) @ table

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        """One head of logits (B, L) under ``mask``."""
        width = seen.shape[1] if mask is None else longest(mask)
        scores = self._scores(seen[:, :width], condition)
        return Verdict.of(F.pad(scores, (0, seen.shape[1] - width)), mask=mask)

    def _scores(self, seen: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        # Unit norm over E entries is small for a recurrent cell; bring entries to unit variance.
        inputs = seen * seen.shape[-1] ** 0.5
        if self.labels is not None and "label" in condition:
            inputs = inputs + self.labels(condition["label"]).unsqueeze(1)
        # cuDNN's recurrent kernels have no second derivative, which penalties need.
        with torch.backends.cudnn.flags(enabled=False):
            states, _ = self.recurrent(inputs)
        scores: Tensor = self.score(torch.cat([states, inputs], dim=2)).squeeze(2)
        return scores

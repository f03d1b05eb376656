"""The recurrent critic: every token gets a real-or-generated logit. Legend: B batch, L tokens, E embedding."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen import Verdict

from ..generators.drawing import longest
from .base import Reader, Sight


class RecurrentCritic(Reader):
    """embeddings (B, L, E), each of norm 1 -> one logit a token (B, L), from that token and those before it.

    Reading left to right makes a token's logit a verdict on what is written so far: a dense reward.
    Source: d'Autume et al. 2019 (ScratchGAN), https://arxiv.org/abs/1905.09922
    """

    def __init__(self, sight: Sight, *, hidden: int) -> None:
        super().__init__(sight)
        self.recurrent = nn.GRU(sight.embedding, hidden, batch_first=True)
        self.score = nn.Sequential(nn.Linear(hidden + sight.embedding, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1))

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        """One head of logits (B, L) under ``mask``."""
        width = seen.shape[1] if mask is None else longest(mask)
        scores = self._scores(seen[:, :width], condition)
        return Verdict.of(F.pad(scores, (0, seen.shape[1] - width)), mask=mask)

    def _scores(self, seen: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        inputs = self.inputs(seen, condition)
        # cuDNN's recurrent kernels have no second derivative, which penalties need.
        with torch.backends.cudnn.flags(enabled=False):
            states, _ = self.recurrent(inputs)
        scores: Tensor = self.score(torch.cat([states, inputs], dim=2)).squeeze(2)
        return scores

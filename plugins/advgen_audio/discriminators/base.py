"""Critics of waveforms, and a discriminator of any set of them.

Legend: B batch, T samples, C channels, S positions that a critic scores one by one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen import ConfigError, Discriminator, Head, Verdict

SLOPE = 0.1

Share = Literal["sum", "mean"]


class WaveformCritic(nn.Module, ABC):
    """waveform (B, 1, T) -> heads with scores (B, S...) and inner activations; no sample sees another of its batch."""

    @abstractmethod
    def forward(self, waveform: Tensor) -> tuple[Head, ...]:
        """Judge waveforms of any T >= 1. Allows double backward."""


def judge_layers(layers: Iterable[nn.Module], last: nn.Module, hidden: Tensor, *, skip_first: bool = False) -> Head:
    """hidden (B, C, ...) -> the head of a chain of convolutions with leaky slopes between them.

    With ``skip_first`` the first layer, which is little more than the waveform, is no feature to match (Vocos).
    """
    features = list[Tensor]()
    for layer in layers:
        hidden = F.leaky_relu(layer(hidden), SLOPE)
        features.append(hidden)
    return Head(last(hidden).squeeze(1), features=tuple(features[int(skip_first) :]))


class CriticSet(Discriminator):
    """waveform (B, 1, T) -> the heads of every critic, in the order given. It has no use for conditions.

    Args:
        critics: names to critics.
        weights: names to each critic's weight, 1 where not given.
        share: "sum": each head has its critic's weight (HiFi-GAN, BigVGAN); "mean": a critic's heads share it (Vocos).
    """

    def __init__(
        self, critics: Mapping[str, WaveformCritic], weights: Mapping[str, float] | None = None, *, share: Share = "sum"
    ) -> None:
        super().__init__()
        unknown = sorted(set(weights or {}) - set(critics))
        if not critics or unknown:
            raise ConfigError(f"critics {', '.join(critics) or 'none'} with weights for {', '.join(unknown) or 'none'} besides")
        self.critics = nn.ModuleDict(critics)
        self.weights = {name: float((weights or {}).get(name, 1.0)) for name in critics}
        self.share = share

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        if seen.dim() != 3 or seen.shape[1] != 1:
            raise ConfigError(f"critics of waveforms got a tensor of shape {tuple(seen.shape)}, expected (B, 1, T)")
        heads = list[Head]()
        for name, critic in self.critics.items():
            found = critic(seen)
            weight = self.weights[name] / (len(found) if self.share == "mean" else 1)
            heads += [replace(head, weight=weight) for head in found]
        return Verdict(tuple(heads))

    def judge_pair(self, real: Tensor, fake: Tensor, condition: Mapping[str, Tensor] | None = None) -> tuple[Verdict, Verdict]:
        """Verdicts of real and fake (B, 1, T) from one pass over both: half the calls, and each spectrum in one batch."""
        both = self(torch.cat([real, fake]), condition or {})
        return split_verdict(both, len(real))


def split_verdict(verdict: Verdict, num_first: int) -> tuple[Verdict, Verdict]:
    """The verdict of the first samples of a batch, and that of the others."""

    def part(rows: slice) -> Verdict:
        return Verdict(
            tuple(
                replace(
                    head,
                    scores=head.scores[rows],
                    mask=None if head.mask is None else head.mask[rows],
                    features=tuple(feature[rows] for feature in head.features),
                )
                for head in verdict.heads
            )
        )

    return part(slice(None, num_first)), part(slice(num_first, None))

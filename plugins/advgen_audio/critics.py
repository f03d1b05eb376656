"""The discriminator: one critic of the whole waveform and two of its spectrograms.

Legend: B batch, T samples, F frames, K bins, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen import Discriminator, Verdict
from advgen_audio.spectrum import ShortTimeFourier

SLOPE = 0.2
# Squared magnitude below which the compression turns linear: its slope stays finite on silence (penalties differentiate it).
SILENCE = 1e-4
COMPRESSION = 0.3


@dataclass(frozen=True)
class CriticShape:
    """Sizes of the critics."""

    length: int
    windows: tuple[int, int]
    wave_channels: int
    spectral_channels: int
    phase_shuffle: int
    num_classes: int


class Projection(nn.Module):
    """features (B, C, *positions), label (B,) -> scores (B, *positions): a linear score plus the label's direction.

    Source: Miyato and Koyama 2018, https://arxiv.org/abs/1802.05637
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.score = nn.Linear(channels, 1)
        self.label = nn.Embedding(num_classes, channels) if num_classes else None
        self.scale = channels**-0.5

    def forward(self, features: Tensor, label: Tensor | None) -> Tensor:
        last = features.movedim(1, -1)
        scores = self.score(last)[..., 0]
        if self.label is None or label is None:
            return scores
        direction = self.label(label).view(len(last), *[1] * (last.ndim - 2), -1)
        return scores + (last * direction).sum(-1) * self.scale


def shuffle_phase(hidden: Tensor, largest: int) -> Tensor:
    """Shift (B, C, T) by one integer in [-largest, largest], the same for the whole batch, with reflected edges.

    Source: Donahue et al. 2019 (WaveGAN), https://arxiv.org/abs/1802.04208
    """
    largest = min(largest, hidden.shape[-1] - 1)
    if largest < 1:
        return hidden
    shift = int(torch.randint(-largest, largest + 1, ()))
    return F.pad(hidden, (largest, largest), mode="reflect")[..., largest + shift : largest + shift + hidden.shape[-1]]


class WaveCritic(nn.Module):
    """waveform (B, 1, T) -> one score a clip (B,): strided convolutions down to 16 positions or fewer.

    Source: Donahue et al. 2019 (WaveGAN), https://arxiv.org/abs/1802.04208
    """

    def __init__(self, shape: CriticShape) -> None:
        super().__init__()
        self.largest_shift = shape.phase_shuffle
        num_layers = max(1, math.ceil(math.log(shape.length / 16, 4)))
        widths = [1] + [min(shape.wave_channels * 2**i, 16 * shape.wave_channels) for i in range(num_layers)]
        self.layers = nn.ModuleList(nn.Conv1d(a, b, 25, 4, 12) for a, b in pairwise(widths))
        positions = shape.length
        for _ in range(num_layers):
            positions = (positions - 1) // 4 + 1
        self.join = nn.Linear(widths[-1] * positions, widths[-1])
        self.head = Projection(widths[-1], shape.num_classes)

    def forward(self, waveform: Tensor, label: Tensor | None) -> Tensor:
        hidden = waveform
        for index, layer in enumerate(self.layers):
            hidden = F.leaky_relu(layer(hidden), SLOPE)
            if index < len(self.layers) - 1:
                hidden = shuffle_phase(hidden, self.largest_shift)
        return self.head(F.leaky_relu(self.join(hidden.flatten(1)), SLOPE), label)


def compress(real: Tensor, imaginary: Tensor) -> Tensor:
    """(B, F, K) parts -> (B, 3, F, K): magnitude to the power 0.3, and both parts scaled to that magnitude."""
    power = real.square() + imaginary.square() + SILENCE
    gain = power ** ((COMPRESSION - 1) / 2)
    return torch.stack([power ** (COMPRESSION / 2) - SILENCE ** (COMPRESSION / 2), real * gain, imaginary * gain], dim=1)


class SpectralCritic(nn.Module):
    """waveform (B, 1, T) -> patch scores (B, frames, bins) from the power-compressed complex spectrogram.

    Source: complex STFT critics, Defossez et al. 2022 (EnCodec), https://arxiv.org/abs/2210.13438
    """

    def __init__(self, n_fft: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.transform = ShortTimeFourier(n_fft, n_fft // 2)
        self.first = nn.Conv2d(3, channels, 5, 2, 2)
        # A patch critic that cannot tell low from high frequency accepts any pitch.
        self.place = nn.Parameter(0.1 * torch.randn(channels, 1, n_fft // 4 + 1))
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(channels, 2 * channels, 3, 2, 1),
                nn.Conv2d(2 * channels, 2 * channels, 3, 2, 1),
                nn.Conv2d(2 * channels, 2 * channels, 3, 1, 1),
            ]
        )
        self.head = Projection(2 * channels, num_classes)

    def forward(self, waveform: Tensor, label: Tensor | None) -> Tensor:
        hidden = self.first(compress(*self.transform(waveform[:, 0]))) + self.place
        for layer in self.layers:
            hidden = layer(F.leaky_relu(hidden, SLOPE))
        return self.head(F.leaky_relu(hidden, SLOPE), label)


class AudioDiscriminator(Discriminator):
    """waveform (B, 1, T), condition["label"] (B,) -> three heads of equal weight: whole clip, long window, short window."""

    def __init__(self, shape: CriticShape) -> None:
        super().__init__()
        self.wave = WaveCritic(shape)
        self.spectral = nn.ModuleList(SpectralCritic(n, shape.spectral_channels, shape.num_classes) for n in shape.windows)

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        label = condition.get("label")
        return Verdict.of(self.wave(seen, label), *(critic(seen, label) for critic in self.spectral))

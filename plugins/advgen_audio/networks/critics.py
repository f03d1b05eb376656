"""The discriminator: critics of spectra and one of the waveform, each of the whole clip.

Legend: B batch, T samples, F frames, K bins, C channels, N numbers that all critics see.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen import Discriminator, Sample, Verdict
from advgen_audio.spectra.fourier import PhaseAdvance

SLOPE = 0.2


@dataclass(frozen=True)
class CriticShape:
    """Sizes of the critics."""

    length: int
    windows: tuple[int, ...]
    wave_channels: int
    spectral_channels: int
    phase_shuffle: int
    num_classes: int


class Heads(nn.Module):
    """features (B, C), label (B,) -> scores (B, 1): does it sound real; with classes (B, 2): and real as what was asked.

    One score for both lets the class alone carry the gradient, and the generator makes one sample a class; a score that
    never sees the label keeps asking for the variety of all data (measured in docs/results.md).

    Source: projection, Miyato and Koyama 2018, https://arxiv.org/abs/1802.05637; collapse by conditioning,
    Shahbazi et al. 2022, https://arxiv.org/abs/2201.06578
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.score = nn.Linear(channels, 2 if num_classes else 1)
        self.label = nn.Embedding(num_classes, channels) if num_classes else None
        self.scale = channels**-0.5

    def forward(self, features: Tensor, label: Tensor | None) -> Tensor:
        scores: Tensor = self.score(features)
        if self.label is None or label is None:
            return scores[:, :1]
        asked = (features * self.label(label)).sum(1) * self.scale
        return torch.stack([scores[:, 0], scores[:, 1] + asked], dim=1)


def shuffle_phase(hidden: Tensor, largest: int) -> Tensor:
    """Shift (B, C, T) by one integer in [-largest, largest], the same for the whole batch, with reflected edges.

    Source: Donahue et al. 2019 (WaveGAN), https://arxiv.org/abs/1802.04208
    """
    largest = min(largest, hidden.shape[-1] - 1)
    if largest < 1:
        return hidden
    shift = torch.randint(-largest, largest + 1, (), device=hidden.device)
    if hidden.is_cuda:  # asking for the number would wait for the device
        return shifted(hidden, shift)
    start = largest + int(shift)
    return F.pad(hidden, (largest, largest), mode="reflect")[..., start : start + hidden.shape[-1]]


def shifted(hidden: Tensor, shift: Tensor) -> Tensor:
    """(B, C, T) from place ``shift`` on, a scalar int64 in (-T, T), with reflected edges."""
    last = hidden.shape[-1] - 1
    place = (torch.arange(last + 1, device=hidden.device) + shift).abs()
    return hidden[..., last - (last - place).abs()]


class WaveCritic(nn.Module):
    """waveform (B, 1, T), label (B,) -> scores (B, heads): strided convolutions down to 16 positions or fewer.

    Source: Donahue et al. 2019 (WaveGAN), https://arxiv.org/abs/1802.04208
    """

    def __init__(self, shape: CriticShape) -> None:
        super().__init__()
        self.length, self.largest_shift = shape.length, shape.phase_shuffle
        num_layers = max(1, math.ceil(math.log(shape.length / 16, 4)))
        widths = [1] + [min(shape.wave_channels * 2**i, 16 * shape.wave_channels) for i in range(num_layers)]
        self.layers = nn.ModuleList(nn.Conv1d(a, b, 25, 4, 12) for a, b in pairwise(widths))
        positions = shape.length
        for _ in range(num_layers):
            positions = (positions - 1) // 4 + 1
        self.join = nn.Linear(widths[-1] * positions, widths[-1])
        self.heads = Heads(widths[-1], shape.num_classes)

    def forward(self, waveform: Tensor, label: Tensor | None) -> Tensor:
        hidden = waveform
        for index, layer in enumerate(self.layers):
            hidden = F.leaky_relu(layer(hidden), SLOPE)
            if index < len(self.layers) - 1:
                hidden = shuffle_phase(hidden, self.largest_shift)
        return self.heads(F.leaky_relu(self.join(hidden.flatten(1)), SLOPE), label)


class SpectralCritic(nn.Module):
    """representation (B, 3, F, K), label (B,) -> scores (B, heads): strided convolutions over time and frequency.

    Source: convolutional critics of spectrograms, Donahue et al. 2019 (SpecGAN), https://arxiv.org/abs/1802.04208
    """

    def __init__(self, size: torch.Size, channels: int, num_classes: int) -> None:
        super().__init__()
        _, frames, bins = size
        widths = (3, channels, 2 * channels, 4 * channels, 4 * channels)
        self.layers = nn.ModuleList()
        for before, after in pairwise(widths):
            # A single frame is not halved again.
            kernel, stride, padding = (4, 2, 1) if frames > 1 else (1, 1, 0)
            self.layers.append(nn.Conv2d(before, after, (kernel, 5), (stride, 2), (padding, 2)))
            frames, bins = max(1, frames // 2), (bins - 1) // 2 + 1
        # Convolutions do not know low from high; the place is added where frequency is still fine.
        self.place = nn.Parameter(0.1 * torch.randn(channels, 1, (size[2] - 1) // 2 + 1))
        self.join = nn.Linear(widths[-1] * frames * bins, widths[-1])
        self.heads = Heads(widths[-1], num_classes)

    def forward(self, seen: Tensor, label: Tensor | None) -> Tensor:
        hidden = seen
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden) + self.place if index == 0 else layer(hidden)
            hidden = F.leaky_relu(hidden, SLOPE)
        return self.heads(F.leaky_relu(self.join(hidden.flatten(1)), SLOPE), label)


class AudioDiscriminator(Discriminator):
    """What ``embed`` makes of a waveform (B, 1, T), condition["label"] (B,) -> a head (B, 1 or 2) for each critic.

    The critics see, and penalties differentiate at, compressed spectra (and the waveform): there a step of a given size is
    about equally audible in a quiet and in a loud sound, and the penalty needs no double backward through the transforms.
    """

    def __init__(self, shape: CriticShape) -> None:
        super().__init__()
        self.views = nn.ModuleList(PhaseAdvance(n_fft, n_fft // 2) for n_fft in shape.windows)
        with torch.no_grad():
            self.sizes = [view(torch.zeros(1, shape.length)).shape[1:] for view in self.views]
        self.spectral = nn.ModuleList(SpectralCritic(size, shape.spectral_channels, shape.num_classes) for size in self.sizes)
        self.wave = WaveCritic(shape) if shape.wave_channels else None

    def embed(self, sample: Sample) -> Tensor:
        """(B, N): every critic's view of the waveforms, flattened, one after the other."""
        waveform = sample.values[:, 0]
        views = [view(waveform).flatten(1) for view in self.views]
        return torch.cat(views if self.wave is None else [*views, waveform], dim=1)

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        label = condition.get("label")
        parts = seen.split([size.numel() for size in self.sizes] + ([] if self.wave is None else [self.wave.length]), dim=1)
        scores = [
            critic(part.unflatten(1, size), label) for critic, part, size in zip(self.spectral, parts, self.sizes, strict=False)
        ]
        if self.wave is not None:
            scores.append(self.wave(parts[-1][:, None], label))
        return Verdict.of(*scores)

"""The generator: noise and label to spectrogram frames, and from there to a waveform.

Legend: B batch, Z noise size, C channels, F frames, K bins, T samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen import Generator, Mode, Sample
from advgen_audio.spectra.fourier import InverseShortTimeFourier

UPSAMPLING = 16
# exp(2) is far above any spectrum of a waveform in [-1, 1], and still finite in every precision.
MAX_LOG_MAGNITUDE = 2.0
INITIAL_LOG_MAGNITUDE = -5.0


@dataclass(frozen=True)
class GeneratorShape:
    """Sizes of the generator."""

    length: int
    n_fft: int
    hop: int
    noise_size: int
    channels: int
    blocks: int
    num_classes: int


class ModulatedBlock(nn.Module):
    """(B, C, F), style (B, S) -> (B, C, F): a ConvNeXt block whose normalisation is scaled and shifted by the style.

    Source: Liu et al. 2022, https://arxiv.org/abs/2201.03545; for audio, Siuzdak 2023, https://arxiv.org/abs/2306.00814
    """

    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, elementwise_affine=False)
        self.modulate = nn.Linear(style, 2 * channels)
        self.widen = nn.Linear(channels, 3 * channels)
        self.narrow = nn.Linear(3 * channels, channels)

    def forward(self, hidden: Tensor, style: Tensor) -> Tensor:
        scale, shift = self.modulate(style)[:, None].chunk(2, dim=-1)
        update = self.norm(self.depthwise(hidden).transpose(1, 2)) * (1 + scale) + shift
        return hidden + self.narrow(F.gelu(self.widen(update))).transpose(1, 2)


class SpectralGenerator(Generator):
    """noise (B, Z), condition["label"] (B,) -> waveform (B, 1, T), about [-1, 1] (writers clip).

    The phase of a bin is an offset plus the running sum of its advance per frame, so a steady tone is a constant output.

    Source: inverse-STFT head, Siuzdak 2023, https://arxiv.org/abs/2306.00814; instantaneous frequency,
    Engel et al. 2019, https://arxiv.org/abs/1902.08710
    """

    def __init__(self, shape: GeneratorShape, truncation: float = 1.0) -> None:
        super().__init__()
        self.shape, self.truncation = shape, truncation
        channels, style = shape.channels, 2 * shape.channels
        self.coarse = math.ceil(shape.length / (shape.hop * UPSAMPLING))
        self.label = nn.Embedding(shape.num_classes, shape.noise_size) if shape.num_classes else None
        self.style = nn.Sequential(nn.Linear(2 * shape.noise_size, style), nn.GELU(), nn.Linear(style, style), nn.GELU())
        self.start = nn.Linear(style, 4 * channels * self.coarse)
        self.up1 = nn.ConvTranspose1d(4 * channels, 2 * channels, 8, 4, 2)
        self.up2 = nn.ConvTranspose1d(2 * channels, channels, 8, 4, 2)
        self.place = nn.Parameter(0.1 * torch.randn(channels, self.coarse * UPSAMPLING))
        self.blocks = nn.ModuleList(ModulatedBlock(channels, style) for _ in range(shape.blocks))
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, 3 * (shape.n_fft // 2 + 1))
        self.inverse = InverseShortTimeFourier(shape.n_fft, shape.hop, self.coarse * UPSAMPLING)
        self._initialize()

    def _initialize(self) -> None:
        """Keep the noise's variance up to the last layer: with torch's own start it fades, and samples are all alike."""
        layers: tuple[tuple[Any, float, int | None], ...] = (
            (self.style[0], 2.0, None),
            (self.style[2], 2.0, None),
            (self.start, 2.0, None),
            (self.up1, 2.0, 2 * self.up1.in_channels),  # a stride of 4 under a kernel of 8: two taps reach an output
            (self.up2, 2.0, 2 * self.up2.in_channels),
            *((block.modulate, 0.5, None) for block in self.blocks),
            (self.head, 0.3, None),
        )
        for layer, gain, inputs in layers:
            nn.init.normal_(layer.weight, 0.0, math.sqrt(gain / (inputs or layer.weight[0].numel())))
            nn.init.zeros_(layer.bias)

    def forward(
        self, noise: Tensor, condition: Mapping[str, Tensor], *, mode: Mode = "values", temperature: float = 1.0
    ) -> Sample:
        magnitude, offset, advance = self.head(self._frames(noise, condition.get("label"))).chunk(3, dim=-1)
        phase = offset + advance.cumsum(dim=1)
        # The inverse transform cancels in half precision: sums of hundreds of terms of both signs.
        with torch.autocast(noise.device.type, enabled=False):
            size = (magnitude + INITIAL_LOG_MAGNITUDE).clamp(max=MAX_LOG_MAGNITUDE).to(noise.dtype).exp()
            angle = phase.to(noise.dtype)
            waveform = self.inverse(size * angle.cos(), size * angle.sin())
        return Sample(waveform[:, None, : self.shape.length])

    def _frames(self, noise: Tensor, label: Tensor | None) -> Tensor:
        asked = torch.zeros_like(noise) if self.label is None or label is None else self.label(label)
        style = self.style(torch.cat([noise, asked], dim=1))
        hidden = F.gelu(self.start(style).unflatten(1, (-1, self.coarse)))
        hidden = self.up2(F.gelu(self.up1(hidden))) + self.place
        for block in self.blocks:
            hidden = block(hidden, style)
        return self.norm(hidden.transpose(1, 2))

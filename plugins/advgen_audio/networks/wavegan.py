"""WaveGAN as published, for comparison: transposed convolutions from noise to samples, and their mirror as a critic.

Train it with the Wasserstein loss, gradient penalty 10, five D steps per G step, Adam 1e-4 with betas (0.5, 0.9), batch 64.

Legend: B batch, Z noise size, C channels, T samples, W whole length: 16 times a product of 4s and at most one 2.

Source: Donahue et al. 2019, https://arxiv.org/abs/1802.04208
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen import Discriminator, Generator, Head, Mode, Sample, Verdict
from advgen_audio.networks.critics import shuffle_phase

KERNEL = 25
COARSE = 16
SLOPE = 0.2


@dataclass(frozen=True)
class WaveganShape:
    """Sizes of both players; the defaults are the published ones (19.07M and 17.43M parameters).

    Args:
        length: T; 16384, 32768 and 65536 are the published ones, others are cut from (and padded to) the next whole length.
        channels: of the layer next to the waveform, doubled at each further one.
        num_classes: 0 as published; else the generator is told the label beside the noise and the critic by projection.
    """

    length: int = 16384
    channels: int = 64
    noise_size: int = 100
    num_classes: int = 0
    phase_shuffle: int = 2

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the critic's layers, the waveform's first: 4s, then a 2 where the length asks for it."""
        doublings = max(1, math.ceil(math.log2(self.length / COARSE)))
        return (4,) * (doublings // 2) + (2,) * (doublings % 2)

    @property
    def whole(self) -> int:
        """W, at least T."""
        return COARSE * math.prod(self.strides)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels from the waveform on."""
        return (1, *(self.channels * 2**layer for layer in range(len(self.strides))))


class WaveganGenerator(Generator):
    """noise (B, Z) normal, condition["label"] (B,) -> waveform (B, 1, T) in (-1, 1).

    The published noise is uniform in (-1, 1), which the normal distribution's own function makes of normal noise.
    """

    def __init__(self, shape: WaveganShape) -> None:
        super().__init__()
        self.shape = shape
        widths = shape.widths
        self.label = nn.Embedding(shape.num_classes, shape.noise_size) if shape.num_classes else None
        self.start = nn.Linear(shape.noise_size * (2 if shape.num_classes else 1), COARSE * widths[-1])
        # Twice the padding less the one extra output is the kernel less the stride, so the length grows exactly.
        self.layers = nn.ModuleList(
            nn.ConvTranspose1d(
                before, after, KERNEL, stride, (KERNEL + 1 - stride) // 2, output_padding=(KERNEL + 1 - stride) % 2 or 1
            )
            for (before, after), stride in zip(pairwise(widths[::-1]), shape.strides[::-1], strict=True)
        )
        self.apply(_initialise)

    def forward(
        self, noise: Tensor, condition: Mapping[str, Tensor], *, mode: Mode = "values", temperature: float = 1.0
    ) -> Sample:
        uniform = torch.erf(noise * 0.5**0.5)
        if self.label is not None:
            uniform = torch.cat([uniform, self.label(condition["label"])], dim=1)
        hidden = self.start(uniform).unflatten(1, (-1, COARSE))
        for layer in self.layers:
            hidden = layer(F.relu(hidden))
        return Sample(hidden.tanh()[..., : self.shape.length])


class WaveganDiscriminator(Discriminator):
    """waveform (B, 1, T), condition["label"] (B,) -> one head (B,), unbounded.

    The phase is shuffled between layers by one shift for the whole batch, drawn anew at every layer and call.
    """

    def __init__(self, shape: WaveganShape) -> None:
        super().__init__()
        self.shape = shape
        self.layers = nn.ModuleList(
            nn.Conv1d(before, after, KERNEL, stride, (KERNEL + 1 - stride) // 2)
            for (before, after), stride in zip(pairwise(shape.widths), shape.strides, strict=True)
        )
        num_features = COARSE * shape.widths[-1]
        self.score = nn.Linear(num_features, 1)
        self.label = nn.Embedding(shape.num_classes, num_features) if shape.num_classes else None
        self.apply(_initialise)

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        hidden, features = F.pad(seen, (0, self.shape.whole - seen.shape[-1])), list[Tensor]()
        for index, layer in enumerate(self.layers):
            hidden = F.leaky_relu(layer(hidden), SLOPE)
            features.append(hidden)
            if index < len(self.layers) - 1:
                hidden = shuffle_phase(hidden, self.shape.phase_shuffle)
        flat = hidden.flatten(1)
        scores = self.score(flat)[:, 0]
        if self.label is not None:
            scores = scores + (flat * self.label(condition["label"])).sum(1) / flat.shape[1] ** 0.5
        return Verdict((Head(scores, features=tuple(features)),))


def _initialise(module: nn.Module) -> None:
    """Glorot's start, the default of the framework that the published code was written for."""
    if isinstance(module, nn.Conv1d | nn.ConvTranspose1d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

"""Critics of samples: every p-th of them side by side, and runs of them at several rates.

Legend: B batch, T samples, C channels, p period.
"""

from __future__ import annotations

from itertools import pairwise
from math import gcd

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from advgen import Head
from advgen_audio.discriminators.base import WaveformCritic, judge_layers
from advgen_audio.spectra.front_ends import reflect_pad
from advgen_audio.vocoders.base import weight_normed

PERIODS = (2, 3, 5, 7, 11)


class PeriodCritic(WaveformCritic):
    """waveform (B, 1, T) -> a head (B, T / (81 p), p): the clip folded to rows of p samples, columns convolved.

    Args:
        skip_first: the first layer is no feature to match (Vocos).

    Source: Kong et al. 2020 (HiFi-GAN), https://arxiv.org/abs/2010.05646
    """

    def __init__(self, period: int, channels: int = 32, *, skip_first: bool = False) -> None:
        super().__init__()
        self.period, self.skip_first = period, skip_first
        widths = (1, channels, 4 * channels, 16 * channels, 32 * channels, 32 * channels)
        strides = (3, 3, 3, 3, 1)
        self.convs = nn.ModuleList(
            weight_normed(nn.Conv2d(before, after, (5, 1), (stride, 1), (2, 0)))
            for (before, after), stride in zip(pairwise(widths), strides, strict=True)
        )
        self.conv_post = weight_normed(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, waveform: Tensor) -> tuple[Head, ...]:
        # Nothing is added where the length divides already.
        whole = reflect_pad(waveform, 0, -waveform.shape[-1] % self.period)
        rows = whole.unflatten(-1, (-1, self.period))
        return (judge_layers(self.convs, self.conv_post, rows, skip_first=self.skip_first),)


class MultiPeriodCritic(WaveformCritic):
    """waveform (B, 1, T) -> a head for each period; prime periods see different samples.

    Source: Kong et al. 2020 (HiFi-GAN), https://arxiv.org/abs/2010.05646
    """

    def __init__(self, channels: int = 32, periods: tuple[int, ...] = PERIODS, *, skip_first: bool = False) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(PeriodCritic(period, channels, skip_first=skip_first) for period in periods)

    def forward(self, waveform: Tensor) -> tuple[Head, ...]:
        return tuple(head for critic in self.discriminators for head in critic(waveform))


class ScaleCritic(WaveformCritic):
    """waveform (B, 1, T) -> a head (B, T / 64): grouped, strided convolutions.

    Args:
        channels: of the first layer; the last has 8 times as many.
        spectral: spectral norm instead of weight norm. Its estimate moves at every call in training mode, a generator's
            update included.

    Source: Kumar et al. 2019 (MelGAN), https://arxiv.org/abs/1910.06711
    """

    def __init__(self, channels: int = 128, *, spectral: bool = False) -> None:
        super().__init__()
        table = (  # channels in and out (in units of the first layer's), kernel, stride, groups
            (0, 1, 15, 1, 1),
            (1, 1, 41, 2, 4),
            (1, 2, 41, 2, 16),
            (2, 4, 41, 4, 16),
            (4, 8, 41, 4, 16),
            (8, 8, 41, 1, 16),
            (8, 8, 5, 1, 1),
        )
        normed = parametrizations.spectral_norm if spectral else weight_normed
        self.convs = nn.ModuleList(
            # A narrow critic has fewer groups.
            normed(
                nn.Conv1d(
                    before * channels or 1,
                    after * channels,
                    kernel,
                    stride,
                    kernel // 2,
                    groups=gcd(groups, before * channels or 1, after * channels),
                )
            )
            for before, after, kernel, stride, groups in table
        )
        self.conv_post = normed(nn.Conv1d(8 * channels, 1, 3, padding=1))

    def forward(self, waveform: Tensor) -> tuple[Head, ...]:
        return (judge_layers(self.convs, self.conv_post, waveform),)


class MultiScaleCritic(WaveformCritic):
    """waveform (B, 1, T) -> a head for each scale: the samples, and means of 4 at half the rate, again and again.

    Args:
        spectral_first: the first scale under spectral norm, as published.

    Source: Kumar et al. 2019 (MelGAN), https://arxiv.org/abs/1910.06711; norms as in Kong et al. 2020 (HiFi-GAN)
    """

    def __init__(self, channels: int = 128, num_scales: int = 3, *, spectral_first: bool = True) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            ScaleCritic(channels, spectral=spectral_first and scale == 0) for scale in range(num_scales)
        )

    def forward(self, waveform: Tensor) -> tuple[Head, ...]:
        heads = list[Head]()
        for scale, critic in enumerate(self.discriminators):
            waveform = waveform if scale == 0 else F.avg_pool1d(waveform, 4, 2, 2)
            heads += critic(waveform)
        return tuple(heads)

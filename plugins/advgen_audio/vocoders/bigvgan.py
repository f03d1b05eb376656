"""BigVGAN: HiFi-GAN's skeleton with periodic activations, kept free of aliases by a filter, in plain torch.

Legend: B batch, M mel bands, F frames, C channels, T samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen_audio.vocoders.base import (
    Reach,
    Span,
    Vocoder,
    check_strides,
    frames_each_side,
    mean_of,
    same_convolution,
    upsampling_convolution,
    upsampling_reach,
    upsampling_strides,
    weight_normed,
)
from advgen_audio.vocoders.hifigan import DEVIATION, EDGE_KERNEL, Dilations

FILTER_TAPS = 12
CUTOFF, HALF_WIDTH = 0.25, 0.3  # of the doubled rate: half the band of the original, and the width of the slope
EPSILON = 1e-9
# Each output of the activation sees this many samples to each side through both filters.
ACTIVATION_REACH = 5

Activation = Literal["snake", "snakebeta"]
Final = Literal["tanh", "clamp"]


def lowpass_filter() -> Tensor:
    """(12,) float64, sum 1: a Kaiser-windowed sinc, symmetric.

    Source: Karras et al. 2021, https://arxiv.org/abs/2106.12423; in audio, Lee et al. 2023, https://arxiv.org/abs/2206.04658
    """
    attenuation = 2.285 * (FILTER_TAPS // 2 - 1) * math.pi * 4 * HALF_WIDTH + 7.95
    beta = 0.1102 * (attenuation - 8.7)  # the formula for attenuations above 50 dB; here it is 51 dB
    window = torch.kaiser_window(FILTER_TAPS, periodic=False, beta=beta, dtype=torch.float64)
    place = torch.arange(FILTER_TAPS, dtype=torch.float64) - (FILTER_TAPS - 1) / 2
    taps = window * torch.sinc(2 * CUTOFF * place)
    return taps / taps.sum()


class Snake(nn.Module):
    """(B, C, T) -> (B, C, T): x + sin^2(a x) / b, a and b learned for each channel; b is a unless ``beta``.

    Both are stored as logarithms that start at 0.

    Source: Ziyin et al. 2020, https://arxiv.org/abs/2006.08195; Lee et al. 2023, https://arxiv.org/abs/2206.04658
    """

    def __init__(self, channels: int, beta: bool) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels)) if beta else None

    def forward(self, hidden: Tensor) -> Tensor:
        frequency = self.alpha.exp()[:, None]
        height = frequency if self.beta is None else self.beta.exp()[:, None]
        return hidden + (hidden * frequency).sin().square() / (height + EPSILON)


class AliasFreeActivation(nn.Module):
    """(B, C, T) -> (B, C, T): Snake at twice the rate between two low-pass filters, so that its overtones do not fold back.

    The upsampling computes even and odd outputs with 6 taps each, instead of 12 over inserted zeros; edges are repeated.

    Source: Lee et al. 2023, https://arxiv.org/abs/2206.04658
    """

    up: Tensor
    down: Tensor

    def __init__(self, channels: int, activation: Activation) -> None:
        super().__init__()
        self.act = Snake(channels, activation == "snakebeta")
        taps = lowpass_filter()
        even, odd = torch.zeros(7, dtype=torch.float64), torch.zeros(7, dtype=torch.float64)
        even[:6], odd[1:] = taps.flip(0)[0::2], taps.flip(0)[1::2]
        dtype = torch.get_default_dtype()
        # Twice the taps: zeros between the samples would halve the level.
        self.register_buffer("up", 2 * torch.stack([even, odd])[:, None].to(dtype), persistent=False)
        self.register_buffer("down", taps[None, None].to(dtype), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, channels, length = hidden.shape
        single = F.pad(hidden, (3, 3), mode="replicate").reshape(batch * channels, 1, length + 6)
        doubled = F.conv1d(single, self.up).transpose(1, 2).reshape(batch, channels, 2 * length)
        bent = F.pad(self.act(doubled), (5, 6), mode="replicate").reshape(batch * channels, 1, 2 * length + 11)
        return F.conv1d(bent, self.down, stride=2).view(batch, channels, length)


@dataclass(frozen=True)
class BigvganShape:
    """Sizes of the generator.

    Args:
        strides: of the upsampling stages, their product is the hop; empty: derived from the hop.
        largest_stride: for derived strides.
        final: tanh with a bias before it (version 1), or clamp to [-1, 1] without one (version 2).
    """

    num_mels: int = 100
    hop: int = 256
    channels: int = 512
    num_stages: int = 4
    largest_stride: int = 8
    strides: tuple[int, ...] = ()
    activation: Activation = "snakebeta"
    final: Final = "tanh"
    kernels: tuple[int, ...] = (3, 7, 11)
    dilations: Dilations = ((1, 3, 5), (1, 3, 5), (1, 3, 5))


def bigvgan_shape(size: Literal["base", "large"], *, num_mels: int = 100, hop: int = 256) -> BigvganShape:
    """The 14M (base) or the 112M (large) generator, for any number of bands and any hop.

    Source: Lee et al. 2023, https://arxiv.org/abs/2206.04658
    """
    base = BigvganShape(num_mels, hop)
    large = BigvganShape(num_mels, hop, channels=1536, num_stages=6, largest_stride=4)
    return {"base": base, "large": large}[size]


class PeriodicBlock(nn.Module):
    """(B, C, T) -> (B, C, T): pairs of activation and convolution, the first dilated, each pair added to its input."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...], activation: Activation) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(same_convolution(channels, kernel, dilation, DEVIATION) for dilation in dilations)
        self.convs2 = nn.ModuleList(same_convolution(channels, kernel, 1, DEVIATION) for _ in dilations)
        self.activations = nn.ModuleList(AliasFreeActivation(channels, activation) for _ in range(2 * len(dilations)))

    def forward(self, hidden: Tensor) -> Tensor:
        pairs = zip(self.convs1, self.convs2, self.activations[::2], self.activations[1::2], strict=True)
        for first, second, activate, activate_again in pairs:
            hidden = hidden + second(activate_again(first(activate(hidden))))
        return hidden


class Bigvgan(Vocoder):
    """mel (B, M, F) -> waveform (B, 1, F * hop) in [-1, 1].

    Source: Lee et al. 2023, https://arxiv.org/abs/2206.04658
    """

    def __init__(self, shape: BigvganShape) -> None:
        strides = shape.strides or upsampling_strides(shape.hop, shape.num_stages, largest=shape.largest_stride)
        check_strides(strides, shape.channels, shape.hop)
        super().__init__(shape.num_mels, shape.hop, frames_each_side(_reaches(shape, strides), shape.hop))
        self.shape = shape
        self.conv_pre = weight_normed(nn.Conv1d(shape.num_mels, shape.channels, EDGE_KERNEL, padding=EDGE_KERNEL // 2))
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        channels = shape.channels
        for stride in strides:
            # A list of one, as published checkpoints name it.
            self.ups.append(nn.ModuleList([upsampling_convolution(channels, channels // 2, stride, DEVIATION)]))
            channels //= 2
            for kernel, dilations in zip(shape.kernels, shape.dilations, strict=True):
                self.resblocks.append(PeriodicBlock(channels, kernel, dilations, shape.activation))
        self.activation_post = AliasFreeActivation(channels, shape.activation)
        last = nn.Conv1d(channels, 1, EDGE_KERNEL, padding=EDGE_KERNEL // 2, bias=shape.final == "tanh")
        self.conv_post = weight_normed(last, DEVIATION)

    def synthesise(self, mel: Tensor) -> Tensor:
        """mel (B, M, F) -> waveform (B, 1, F * hop) in [-1, 1]."""
        hidden, width = self.conv_pre(mel), len(self.shape.kernels)
        for stage, upsample in enumerate(self.ups):
            for layer in upsample.children():
                hidden = layer(hidden)
            hidden = mean_of(self.resblocks[stage * width : (stage + 1) * width], hidden)
        waveform: Tensor = self.conv_post(self.activation_post(hidden))
        return waveform.tanh() if self.shape.final == "tanh" else waveform.clamp(-1, 1)


def _reaches(shape: BigvganShape, strides: tuple[int, ...]) -> list[Reach]:
    widest = max(
        sum((kernel - 1) // 2 * (dilation + 1) + 2 * ACTIVATION_REACH for dilation in dilations)
        for kernel, dilations in zip(shape.kernels, shape.dilations, strict=True)
    )
    stages = [reach for stride in strides for reach in (upsampling_reach(stride), Span(widest))]
    return [Span(EDGE_KERNEL // 2), *stages, Span(ACTIVATION_REACH), Span(EDGE_KERNEL // 2)]

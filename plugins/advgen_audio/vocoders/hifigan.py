"""HiFi-GAN V1, V2 and V3 from one class. Legend: B batch, M mel bands, F frames, C channels, T samples."""

from __future__ import annotations

from dataclasses import dataclass

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

SLOPE = 0.1
LAST_SLOPE = 0.01
DEVIATION = 0.01
EDGE_KERNEL = 7

Dilations = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class HifiganShape:
    """Sizes of the generator.

    Args:
        strides: of the upsampling stages, their product is the hop; empty: derived from the hop.
        paired: each dilated convolution is followed by one without dilation (the paper's first kind of block).
        kernels: one residual block for each, averaged.
        dilations: of each kernel's block.
    """

    num_mels: int = 80
    hop: int = 256
    channels: int = 512
    num_stages: int = 4
    strides: tuple[int, ...] = ()
    paired: bool = True
    kernels: tuple[int, ...] = (3, 7, 11)
    dilations: Dilations = ((1, 3, 5), (1, 3, 5), (1, 3, 5))


def hifigan_shape(version: int, *, num_mels: int = 80, hop: int = 256) -> HifiganShape:
    """Version 1, 2 or 3 as published, for any number of bands and any hop.

    Source: Kong et al. 2020, Table 5, https://arxiv.org/abs/2010.05646
    """
    first = HifiganShape(num_mels, hop)
    small = HifiganShape(num_mels, hop, channels=128)
    smaller = HifiganShape(num_mels, hop, 256, 3, (), False, (3, 5, 7), ((1, 2), (2, 6), (3, 12)))
    return {1: first, 2: small, 3: smaller}[version]


class ResidualBlock(nn.Module):
    """(B, C, T) -> (B, C, T): dilated convolutions, each added to what it was given.

    Parameters are named as in published checkpoints, which therefore load as they are.
    """

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...], paired: bool) -> None:
        super().__init__()
        dilated = nn.ModuleList(same_convolution(channels, kernel, dilation, DEVIATION) for dilation in dilations)
        self.paired = paired
        if paired:
            self.convs1 = dilated
            self.convs2 = nn.ModuleList(same_convolution(channels, kernel, 1, DEVIATION) for _ in dilations)
        else:
            self.convs = dilated

    def forward(self, hidden: Tensor) -> Tensor:
        if not self.paired:
            for layer in self.convs:
                hidden = hidden + layer(F.leaky_relu(hidden, SLOPE))
            return hidden
        for first, second in zip(self.convs1, self.convs2, strict=True):
            hidden = hidden + second(F.leaky_relu(first(F.leaky_relu(hidden, SLOPE)), SLOPE))
        return hidden


class Hifigan(Vocoder):
    """mel (B, M, F) -> waveform (B, 1, F * hop) in (-1, 1).

    Source: Kong et al. 2020, https://arxiv.org/abs/2010.05646
    """

    def __init__(self, shape: HifiganShape) -> None:
        strides = shape.strides or upsampling_strides(shape.hop, shape.num_stages)
        check_strides(strides, shape.channels, shape.hop)
        super().__init__(shape.num_mels, shape.hop, frames_each_side(_reaches(shape, strides), shape.hop))
        self.shape = shape
        self.conv_pre = weight_normed(nn.Conv1d(shape.num_mels, shape.channels, EDGE_KERNEL, padding=EDGE_KERNEL // 2))
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        channels = shape.channels
        for stride in strides:
            self.ups.append(upsampling_convolution(channels, channels // 2, stride, DEVIATION))
            channels //= 2
            for kernel, dilations in zip(shape.kernels, shape.dilations, strict=True):
                self.resblocks.append(ResidualBlock(channels, kernel, dilations, shape.paired))
        self.conv_post = weight_normed(nn.Conv1d(channels, 1, EDGE_KERNEL, padding=EDGE_KERNEL // 2), DEVIATION)

    def synthesise(self, mel: Tensor) -> Tensor:
        """mel (B, M, F) -> waveform (B, 1, F * hop) in (-1, 1)."""
        hidden, width = self.conv_pre(mel), len(self.shape.kernels)
        for stage, upsample in enumerate(self.ups):
            hidden = upsample(F.leaky_relu(hidden, SLOPE))
            hidden = mean_of(self.resblocks[stage * width : (stage + 1) * width], hidden)
        waveform: Tensor = self.conv_post(F.leaky_relu(hidden, LAST_SLOPE)).tanh()
        return waveform


def _reaches(shape: HifiganShape, strides: tuple[int, ...]) -> list[Reach]:
    extra = 1 if shape.paired else 0
    widest = max(
        sum((kernel - 1) // 2 * (dilation + extra) for dilation in dilations)
        for kernel, dilations in zip(shape.kernels, shape.dilations, strict=True)
    )
    stages = [reach for stride in strides for reach in (upsampling_reach(stride), Span(widest))]
    return [Span(EDGE_KERNEL // 2), *stages, Span(EDGE_KERNEL // 2)]

"""Residual networks without normalisation. Legend: B batch, Z noise, C channels, H height, W width.

What keeps them stable without norms: each residual branch ends in a convolution that starts at zero, and the others start
smaller the more branches there are, so that the variance stays about the same however deep the network is.

Source: Huang et al. 2024 (R3GAN), https://arxiv.org/abs/2501.05441; Zhang et al. 2019 (Fixup), https://arxiv.org/abs/1901.09321
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advgen import ConfigError, Discriminator, Generator, Head, Mode, Sample, Verdict
from advgen_image.config import ImageConfig
from advgen_image.families.common import (
    RECTIFIED_GAIN,
    SLOPE,
    downsample,
    label_of,
    scaled_normal,
    stage_widths,
    upsample,
)
from advgen_image.networks import ImageShape

CLASS_SIZE = 64
BLOCKS = 2
EXPANSION = 2


class BiasedActivation(nn.Module):
    """hidden (B, C, H, W) -> the same: one bias a channel, then a leaky rectifier. The only biases of this family."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, hidden: Tensor) -> Tensor:
        """Shift and rectify."""
        return F.leaky_relu(hidden + self.bias.to(hidden.dtype).reshape(1, -1, 1, 1), SLOPE)


class ResidualBlock(nn.Module):
    """hidden (B, C, H, W) -> the same: hidden plus a grouped 3x3 inside an inverted bottleneck."""

    def __init__(self, channels: int, group_size: int, num_branches: int) -> None:
        super().__init__()
        inner, gain = channels * EXPANSION, RECTIFIED_GAIN * num_branches**-0.25
        self.expand = nn.Conv2d(channels, inner, 1, bias=False)
        self.first = BiasedActivation(inner)
        self.mix = nn.Conv2d(inner, inner, 3, padding=1, groups=num_groups(inner, group_size), bias=False)
        self.second = BiasedActivation(inner)
        self.reduce = nn.Conv2d(inner, channels, 1, bias=False)
        for layer, start in ((self.expand, gain), (self.mix, gain), (self.reduce, 0.0)):
            scaled_normal(layer, start)

    def forward(self, hidden: Tensor) -> Tensor:
        """At the start the identity, as the last convolution is zero."""
        branch = self.second(self.mix(self.first(self.expand(hidden))))
        return hidden + self.reduce(branch)


def num_groups(channels: int, group_size: int) -> int:
    """How many groups of ``group_size`` channels there are; one where there are fewer channels than that.

    Raises:
        ConfigError: where the channels do not divide into such groups.
    """
    if channels <= group_size:
        return 1
    if channels % group_size:
        raise ConfigError(
            f"options.width: blocks of {channels} inner channels do not divide into groups of {group_size}; set options.width "
            f"to a multiple of {max(group_size // EXPANSION, 1)}, or options.group_size to a divisor of {channels}"
        )
    return channels // group_size


def _blocks(config: ImageConfig, channels: int, depth: int) -> list[nn.Module]:
    blocks = config.blocks or BLOCKS
    return [ResidualBlock(channels, config.group_size, blocks * (depth + 1)) for _ in range(blocks)]


def _change_width(before: int, after: int) -> list[nn.Module]:
    if before == after:
        return []
    layer = nn.Conv2d(before, after, 1, bias=False)
    scaled_normal(layer)
    return [layer]


class Upsample(nn.Module):
    """hidden (B, C, H, W) -> (B, C, 2H, 2W)."""

    def forward(self, hidden: Tensor) -> Tensor:
        """See ``upsample``."""
        return upsample(hidden)


class Downsample(nn.Module):
    """hidden (B, C, 2H, 2W) -> (B, C, H, W)."""

    def forward(self, hidden: Tensor) -> Tensor:
        """See ``downsample``."""
        return downsample(hidden)


class R3Generator(Generator):
    """noise (B, Z), label (B,) -> images (B, C, H, W), about [-1, 1]: nothing bounds them."""

    def __init__(self, config: ImageConfig, shape: ImageShape, depth: int) -> None:
        super().__init__()
        widths = stage_widths(config.width, depth, config.doublings)
        self.embedding = nn.Embedding(shape.num_classes, CLASS_SIZE) if shape.num_classes else None
        inner = config.noise_size + (CLASS_SIZE if shape.num_classes else 0)
        self.basis = nn.Parameter(torch.randn(widths[0], shape.height >> depth, shape.width >> depth))
        self.weigh = nn.Linear(inner, widths[0], bias=False)
        layers = _blocks(config, widths[0], depth)
        for before, after in pairwise(widths):
            layers += [*_change_width(before, after), Upsample(), *_blocks(config, after, depth)]
        self.layers = nn.Sequential(*layers)
        self.paint = nn.Conv2d(widths[-1], shape.channels, 1, bias=False)
        scaled_normal(self.weigh)
        scaled_normal(self.paint)

    def forward(
        self, noise: Tensor, condition: Mapping[str, Tensor], *, mode: Mode = "values", temperature: float = 1.0
    ) -> Sample:
        """Draw images; ``mode`` and ``temperature`` change nothing. Couples no samples."""
        if self.embedding is not None:
            noise = torch.cat([noise, label_of(condition, self.embedding, noise)], dim=1)
        start = self.basis * self.weigh(noise)[:, :, None, None]
        return Sample(self.paint(self.layers(start)))


class R3Discriminator(Discriminator):
    """images (B, C, H, W), label (B,) -> one raw logit per image, (B,): the generator's mirror image."""

    def __init__(self, config: ImageConfig, shape: ImageShape, depth: int) -> None:
        super().__init__()
        widths = stage_widths(config.discriminator_width or config.width, depth, config.doublings)[::-1]
        self.read = nn.Conv2d(shape.channels, widths[0], 1, bias=False)
        scaled_normal(self.read)
        stages = [nn.Sequential(*_blocks(config, widths[0], depth))]
        for before, after in pairwise(widths):
            stages.append(nn.Sequential(Downsample(), *_change_width(before, after), *_blocks(config, after, depth)))
        self.stages = nn.ModuleList(stages)
        last, base = widths[-1], (shape.height >> depth, shape.width >> depth)
        self.collect = nn.Conv2d(last, last, base, groups=last, bias=False)
        self.embedding = nn.Embedding(shape.num_classes, last) if shape.num_classes else None
        self.score = nn.Linear(last, last if shape.num_classes else 1, bias=False)
        scaled_normal(self.collect)
        scaled_normal(self.score)

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        """Judge images; with classes, the score is the projection on the class's embedding alone."""
        features, hidden = [], self.read(seen)
        for stage in self.stages:
            hidden = stage(hidden)
            features.append(hidden)
        scores = self.score(self.collect(hidden).flatten(1))
        if self.embedding is None:
            scores = scores.squeeze(1)
        elif condition.get("label") is None:
            scores = scores.sum(1) / math.sqrt(scores.shape[1])
        else:
            scores = (scores * label_of(condition, self.embedding, scores)).sum(1) / math.sqrt(scores.shape[1])
        return Verdict((Head(scores, features=tuple(features)),))

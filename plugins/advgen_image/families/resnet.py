"""Residual networks with norms: conditional normalisation in G; spectral norm and class projection in D.

Legend: B batch, Z noise, S style, C channels, H height, W width.

Source: Miyato et al. 2018 (SNGAN), https://arxiv.org/abs/1802.05957; Miyato and Koyama 2018 (projection),
https://arxiv.org/abs/1802.05637; Zhang et al. 2018 (SAGAN), https://arxiv.org/abs/1805.08318; Brock et al. 2018 (BigGAN),
https://arxiv.org/abs/1809.11096
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advgen import ConfigError, Discriminator, Generator, Head, Mode, Sample, Verdict
from advgen_image.config import ImageConfig
from advgen_image.families.common import label_of, stage_widths
from advgen_image.families.spectral import SelfAttention, spectral
from advgen_image.modulation import STYLE_SIZE, Modulation
from advgen_image.networks import EMBEDDING_SIZE, ImageShape, make_norm, with_label

BLOCKS = 1


def _convolution(before: int, after: int, size: int, normalized: bool, gain: float = math.sqrt(2.0)) -> nn.Module:
    """A convolution that keeps height and width, with the published initial weights."""
    layer = nn.Conv2d(before, after, size, padding=size // 2)
    nn.init.xavier_uniform_(layer.weight, gain)
    nn.init.zeros_(layer.bias) if layer.bias is not None else None
    return spectral(layer, normalized)


def attention_level(shape: ImageShape, depth: int, side: int | None) -> int | None:
    """Which resolution, counted from the smallest, has self-attention; None where none is wanted.

    Raises:
        ConfigError: where no resolution has that side.
    """
    sides = [min(shape.height, shape.width) >> level for level in range(depth, -1, -1)]
    if side is None:
        return None
    if side not in sides or side < 2:
        known = ", ".join(str(each) for each in sides if each > 1)
        raise ConfigError(f"options.attention={side}: no resolution has that shorter side; these have one: {known}")
    return sides.index(side)


class ConditionalNorm(nn.Module):
    """hidden (B, C, H, W), style (B, S) or None -> normalised; scaled and shifted by the style where there is one."""

    def __init__(self, channels: int, norm: str, styled: bool) -> None:
        super().__init__()
        self.layer = Modulation(channels, norm) if styled else make_norm(norm, channels)
        self.styled = styled

    def forward(self, hidden: Tensor, style: Tensor | None) -> Tensor:
        """Each sample by its own style."""
        normalised: Tensor = self.layer(hidden, style) if self.styled else self.layer(hidden)
        return normalised


class GeneratorBlock(nn.Module):
    """hidden (B, C, H, W), style -> (B, C', H, W), or twice as high and wide."""

    def __init__(self, before: int, after: int, norm: str, styled: bool, up: bool, normalized: bool) -> None:
        super().__init__()
        self.up = up
        self.first, self.second = ConditionalNorm(before, norm, styled), ConditionalNorm(after, norm, styled)
        self.convolve = _convolution(before, after, 3, normalized)
        self.finish = _convolution(after, after, 3, normalized)
        self.skip = _convolution(before, after, 1, normalized, 1.0) if up or before != after else nn.Identity()

    def forward(self, hidden: Tensor, style: Tensor | None) -> Tensor:
        """Normalise and rectify before each convolution."""
        branch = self.convolve(self._larger(F.relu(self.first(hidden, style))))
        branch = self.finish(F.relu(self.second(branch, style)))
        skipped: Tensor = self.skip(self._larger(hidden))
        return skipped + branch

    def _larger(self, hidden: Tensor) -> Tensor:
        return F.interpolate(hidden, scale_factor=2.0, mode="nearest") if self.up else hidden


class ResnetGenerator(Generator):
    """noise (B, Z), label (B,) -> images (B, C, H, W) in [-1, 1]."""

    def __init__(self, config: ImageConfig, shape: ImageShape, depth: int) -> None:
        super().__init__()
        widths = stage_widths(config.width, depth, config.doublings)
        normalized, norm = config.spectral_norm == "both", config.generator_norm
        self.start = (widths[0], shape.height >> depth, shape.width >> depth)
        self.embedding = nn.Embedding(shape.num_classes, EMBEDDING_SIZE) if shape.num_classes else None
        inner = config.noise_size + (EMBEDDING_SIZE if shape.num_classes else 0)
        self.project = spectral(nn.Linear(inner, math.prod(self.start)), normalized)
        # Without modulation by the noise, the class alone sets scales and shifts, and nothing does without classes.
        self.unread = 0 if config.modulation else config.noise_size
        styled = inner > self.unread
        self.style = nn.Sequential(nn.Linear(inner - self.unread, STYLE_SIZE), nn.LeakyReLU(0.2)) if styled else None
        self.layers = nn.ModuleList()
        attention = attention_level(shape, depth, config.attention)
        for level, (before, after) in enumerate(zip([widths[0], *widths], widths, strict=False)):
            for block in range(config.blocks or BLOCKS) if level else ():
                first = block == 0
                wide = before if first else after
                self.layers.append(GeneratorBlock(wide, after, norm, styled, first, normalized))
            if level == attention:
                self.layers.append(SelfAttention(after, normalized))
        self.last = make_norm(norm, widths[-1])
        self.paint = _convolution(widths[-1], shape.channels, 3, normalized, 1.0)

    def forward(
        self, noise: Tensor, condition: Mapping[str, Tensor], *, mode: Mode = "values", temperature: float = 1.0
    ) -> Sample:
        """Draw images; ``mode`` and ``temperature`` change nothing. Couples the batch only through BatchNorm in training."""
        inner = with_label(self.embedding, noise, condition)
        style = None if self.style is None else self.style(inner[:, self.unread :])
        hidden = self.project(inner).unflatten(1, self.start)
        for layer in self.layers:
            hidden = layer(hidden) if isinstance(layer, SelfAttention) else layer(hidden, style)
        return Sample(torch.tanh(self.paint(F.relu(self.last(hidden)))))


class DiscriminatorBlock(nn.Module):
    """hidden (B, C, H, W) -> (B, C', H, W), or half as high and wide."""

    def __init__(self, before: int, after: int, down: bool, first: bool, normalized: bool) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.convolve = _convolution(before, after, 3, normalized)
        self.finish = _convolution(after, after, 3, normalized)
        self.skip = _convolution(before, after, 1, normalized, 1.0) if down or before != after else nn.Identity()

    def forward(self, hidden: Tensor) -> Tensor:
        """The first block reads the image itself, which is not rectified."""
        branch = self.finish(F.relu(self.convolve(hidden if self.first else F.relu(hidden))))
        skipped: Tensor = self.skip(hidden)
        total = skipped + branch
        return F.avg_pool2d(total, 2) if self.down else total


class ResnetDiscriminator(Discriminator):
    """images (B, C, H, W), label (B,) -> one raw logit per image, (B,)."""

    def __init__(self, config: ImageConfig, shape: ImageShape, depth: int) -> None:
        super().__init__()
        widths = stage_widths(config.discriminator_width or config.width, depth, config.doublings)[::-1]
        normalized, blocks = config.spectral_norm != "none", config.blocks or BLOCKS
        attention = attention_level(shape, depth, config.attention)
        stages, before = list[nn.Module](), shape.channels
        for level, after in enumerate(widths):
            stage = list[nn.Module]()
            for block in range(blocks):
                down = level < depth and block == blocks - 1
                stage.append(DiscriminatorBlock(before, after, down, level == block == 0, normalized))
                before = after
            if attention is not None and level + 1 == depth - attention:
                stage.append(SelfAttention(after, normalized))
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)
        self.score = spectral(nn.Linear(widths[-1], 1), normalized)
        self.embedding = spectral(nn.Embedding(shape.num_classes, widths[-1]), normalized) if shape.num_classes else None

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        """Judge images: an unconditional logit plus the projection on the class's embedding."""
        features, hidden = [], seen
        for stage in self.stages:
            hidden = stage(hidden)
            features.append(hidden)
        pooled = F.relu(hidden).sum((2, 3))
        scores = self.score(pooled).squeeze(1)
        if self.embedding is not None:
            scores = scores + (label_of(condition, self.embedding, pooled) * pooled).sum(1)
        return Verdict((Head(scores, features=tuple(features)),))

"""A strided generator whose every layer is scaled and shifted by the noise. Legend: B batch, Z noise, S style, C channels.

Source: Chen et al. 2018 (self-modulation), https://arxiv.org/abs/1810.01365
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from advgen import Generator, Mode, Sample
from advgen_image.networks import EMBEDDING_SIZE, MOST_DOUBLINGS, ImageShape, initialize, level_widths, make_norm, with_label

STYLE_SIZE = 64
# Layers start nearly unmodulated: the first images depend on the noise, none by a scale far from 1.
START_GAIN = 0.3


class Modulation(nn.Module):
    """hidden (B, C, H, W), style (B, S) -> (B, C, H, W): normalised, then scaled and shifted channel by channel."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.norm = make_norm(norm, channels, affine=False)
        self.style = nn.Linear(STYLE_SIZE, 2 * channels)

    def forward(self, hidden: Tensor, style: Tensor) -> Tensor:
        """One scale, as the difference from 1, and one shift for each channel of each sample."""
        scale, shift = self.style(style).unsqueeze(-1).unsqueeze(-1).chunk(2, dim=1)
        return torch.addcmul(shift, self.norm(hidden), 1 + scale)


class ModulatedGenerator(Generator):
    """noise (B, Z), label (B,) -> images (B, C, H, W) in [-1, 1].

    A property of the whole image, such as one colour, reaches every layer in one step; where each layer sees only the
    layer before it, patches of an image settle on different ones.
    """

    def __init__(
        self,
        shape: ImageShape,
        *,
        noise_size: int,
        width: int,
        depth: int,
        norm: str,
        normal_init: bool,
        doublings: int = MOST_DOUBLINGS,
    ) -> None:
        super().__init__()
        widths = level_widths(width, depth, doublings)[::-1]
        self.start = (widths[0], shape.height >> depth, shape.width >> depth)
        self.embedding = nn.Embedding(shape.num_classes, EMBEDDING_SIZE) if shape.num_classes else None
        inner = noise_size + (EMBEDDING_SIZE if shape.num_classes else 0)
        self.project = nn.Linear(inner, math.prod(self.start))
        self.style = nn.Sequential(nn.Linear(inner, STYLE_SIZE), nn.LeakyReLU(0.2))
        self.modulations = nn.ModuleList(Modulation(channels, norm) for channels in widths)
        self.layers = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, 2, 1) for a, b in pairwise([*widths, shape.channels]))
        initialize(self, normal_init)
        self._calm()

    @torch.no_grad()
    def _calm(self) -> None:
        for module in self.modules():
            if isinstance(module, Modulation):
                module.style.weight.mul_(START_GAIN)

    def forward(
        self, noise: Tensor, condition: Mapping[str, Tensor], *, mode: Mode = "values", temperature: float = 1.0
    ) -> Sample:
        """Draw images; ``mode`` and ``temperature`` change nothing. Couples the batch only through BatchNorm in training."""
        inner = with_label(self.embedding, noise, condition)
        hidden, style = self.project(inner).unflatten(1, self.start), self.style(inner)
        for modulation, layer in zip(self.modulations, self.layers, strict=True):
            hidden = layer(torch.relu(modulation(hidden, style)))
        return Sample(torch.tanh(hidden))

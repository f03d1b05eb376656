"""Strided generator and discriminator. Legend: B batch, Z noise, C channels, H height, W width, K classes.

Source: Radford et al. 2015 (DCGAN), https://arxiv.org/abs/1511.06434;
Miyato and Koyama 2018 (projection), https://arxiv.org/abs/1802.05637
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from advgen import DataError, Discriminator, Generator, Head, Mode, Sample, Verdict

SMALLEST_SIDE = 4
LARGEST_SIDE = 16
MOST_DOUBLINGS = 3
EMBEDDING_SIZE = 32
# Inside the root of a norm, where the slope would be infinite at 0.
SMALLEST_POWER = 1e-6


@dataclass(frozen=True)
class ImageShape:
    """What the networks must know of the data; ``num_classes`` 0 means unconditional."""

    channels: int
    height: int
    width: int
    num_classes: int = 0


def choose_depth(height: int, width: int, depth: int | None = None) -> int:
    """How many halvings a height and width allow: 2 for 28x28, 3 for 32x32, 4 for 64x64.

    Raises:
        DataError: where the sides cannot be halved often enough, with the nearest sizes that can.
    """
    wanted = depth or max(1, math.ceil(math.log2(min(height, width) / LARGEST_SIDE)))
    if height % 2**wanted or width % 2**wanted:
        nearby = " or ".join(f"{_near(height, wanted, up)}x{_near(width, wanted, up)}" for up in (False, True))
        raise DataError(
            f"images of {height}x{width} cannot be halved {wanted} times, expected sides that {2**wanted} divides; "
            f"set options.image_height and options.image_width to {nearby}, or another options.depth"
        )
    if depth:
        return depth
    fitting = [d for d in range(wanted, 9) if height % 2**d == width % 2**d == 0 and min(height, width) >> d >= SMALLEST_SIDE]
    return max(fitting, default=wanted)


def _near(side: int, depth: int, up: bool) -> int:
    step = 2**depth
    return int(max(step, side // step * step) + (step if up and side % step else 0))


def level_widths(width: int, depth: int, doublings: int = MOST_DOUBLINGS) -> list[int]:
    """Channels from the level next to the image (half size) to the smallest: 16, 32, 64 for width 16."""
    return [width * 2 ** min(level, doublings) for level in range(depth)]


def with_label(embedding: nn.Embedding | None, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
    """Noise (B, Z) beside the label's embedding, (B, Z + 32); zeros where no label is given, noise alone without classes."""
    if embedding is None:
        return noise
    label = condition.get("label")
    blank = noise.new_zeros(noise.shape[0], EMBEDDING_SIZE)
    return torch.cat([noise, blank if label is None else look_up(embedding, label).to(noise.dtype)], dim=1)


def look_up(table: nn.Module, label: Tensor) -> Tensor:
    """The embeddings (B, E) of classes (B,), or of mixtures that are given as shares (B, K) of all classes."""
    if label.is_floating_point():
        weight = table.weight
        assert isinstance(weight, Tensor)  # given embeddings alone
        return label @ weight
    found: Tensor = table(label)
    return found


class ImageGenerator(Generator):
    """noise (B, Z), label (B,) -> images (B, C, H, W) in [-1, 1]."""

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
        layers: list[nn.Module] = [make_norm(norm, widths[0]), nn.ReLU()]
        for before, after in pairwise(widths):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=norm != "batch"), make_norm(norm, after), nn.ReLU()]
        layers += [nn.ConvTranspose2d(widths[-1], shape.channels, 4, 2, 1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        initialize(self, normal_init)

    def forward(
        self, noise: Tensor, condition: Mapping[str, Tensor], *, mode: Mode = "values", temperature: float = 1.0
    ) -> Sample:
        """Draw images; ``mode`` and ``temperature`` change nothing. Couples the batch only through BatchNorm in training."""
        start = self.project(with_label(self.embedding, noise, condition)).unflatten(1, self.start)
        return Sample(self.layers(start))


class ImageDiscriminator(Discriminator):
    """images (B, C, H, W), label (B,) -> one raw logit per image, (B,)."""

    def __init__(
        self,
        shape: ImageShape,
        *,
        width: int,
        depth: int,
        norm: str,
        normal_init: bool,
        doublings: int = MOST_DOUBLINGS,
    ) -> None:
        super().__init__()
        widths = [shape.channels, *level_widths(width, depth, doublings)]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 4, 2, 1), make_norm(norm if level else "none", after), nn.LeakyReLU(0.2))
            for level, (before, after) in enumerate(pairwise(widths))
        )
        flat = widths[-1] * (shape.height >> depth) * (shape.width >> depth)
        self.score = nn.Linear(flat, 1)
        self.embedding = nn.Embedding(shape.num_classes, EMBEDDING_SIZE) if shape.num_classes else None
        self.project = nn.Linear(flat, EMBEDDING_SIZE) if shape.num_classes else None
        initialize(self, normal_init)

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        """Judge images: an unconditional logit plus the class's projection."""
        features, hidden = [], seen
        for block in self.blocks:
            hidden = block(hidden)
            features.append(hidden)
        flat = hidden.flatten(1)
        scores = self.score(flat).squeeze(1)
        label = condition.get("label")
        if self.embedding is not None and self.project is not None and label is not None:
            scores = scores + (self.embedding(label) * self.project(flat)).sum(1) / math.sqrt(EMBEDDING_SIZE)
        return Verdict((Head(scores, features=tuple(features)),))


class PixelNorm(nn.Module):
    """hidden (B, C, H, W) -> the same, with root mean square 1 over the channels of each place.

    Source: Karras et al. 2017 (progressive GAN), https://arxiv.org/abs/1710.10196
    """

    def forward(self, hidden: Tensor) -> Tensor:
        """Each sample and place on its own, so the batch is not coupled."""
        return hidden * torch.rsqrt(hidden.square().mean(1, keepdim=True) + SMALLEST_POWER)


def make_norm(kind: str, channels: int, *, affine: bool = True) -> nn.Module:
    """The layer that ``generator_norm`` or ``discriminator_norm`` names."""
    if kind == "batch":
        return nn.BatchNorm2d(channels, affine=affine)
    return PixelNorm() if kind == "pixel" else nn.Identity()


def initialize(network: nn.Module, normal: bool) -> None:
    """Weights N(0, 0.02) as in DCGAN where ``normal``; else variance-keeping for rectified layers. Biases start at 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            if normal:
                nn.init.normal_(module.weight, 0.0, 0.02)
            else:
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / (1.0 + 0.2**2) / _fan_in(module)))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d) and module.affine and normal:
            nn.init.normal_(module.weight, 1.0, 0.02)


def _fan_in(module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> int:
    """Inputs that reach one output; a stride-2 transposed 4x4 kernel touches each output with a quarter of itself."""
    if isinstance(module, nn.ConvTranspose2d):
        return module.in_channels * 4
    return module.weight[0].numel()

"""Style-based networks. Legend: B batch, Z noise, S style (as long as the noise), L layers, C channels, H height, W width.

Source: Karras et al. 2019 (StyleGAN2), https://arxiv.org/abs/1912.04958; Karras et al. 2018 (mixing, truncation),
https://arxiv.org/abs/1812.04948; Karras et al. 2017 (minibatch deviation), https://arxiv.org/abs/1710.10196
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advgen import Discriminator, Generator, Head, Mode, Sample, Verdict
from advgen_image.config import ImageConfig
from advgen_image.families.common import label_of, stage_widths
from advgen_image.families.equalized import EPSILON, EqualConv, EqualLinear, ModulatedConv, rectify, unit_square
from advgen_image.networks import ImageShape

MAPPING_RATE = 0.01
MEAN_SAMPLES = 1024
MEAN_SEED = 0
MEAN_DECAY = 0.995


class StyleMapping(nn.Module):
    """noise (B, Z), label (B,) -> style (B, S); without noise, the class alone -> (B, S)."""

    def __init__(self, noise_size: int, num_classes: int, style_size: int, num_layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_classes, style_size) if num_classes else None
        sizes = [noise_size + (style_size if num_classes else 0)] + [style_size] * num_layers
        self.layers = nn.ModuleList(EqualLinear(a, b, rate=MAPPING_RATE) for a, b in pairwise(sizes))

    def forward(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Noise and class each at mean square 1, then the layers."""
        parts = [unit_square(noise)] if noise.shape[1] else []
        if self.embedding is not None:
            parts.append(unit_square(label_of(condition, self.embedding, noise)))
        hidden = torch.cat(parts, dim=1)
        for layer in self.layers:
            hidden = rectify(layer(hidden))
        return hidden


class StyledLayer(nn.Module):
    """hidden (B, C, H, W), style (B, S) -> (B, C', H', W'): modulated convolution, noise of each place, rectifier."""

    fixed: Tensor

    def __init__(self, before: int, after: int, style: int, side: tuple[int, int], up: bool) -> None:
        super().__init__()
        self.convolve = ModulatedConv(before, after, 3, style, up=up)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(after))
        self.register_buffer("fixed", torch.randn(1, 1, *side))

    def forward(self, hidden: Tensor, style: Tensor) -> Tensor:
        """Fresh noise in training; one fixed pattern afterwards, so that an image depends on its latent alone."""
        hidden = self.convolve(hidden, style)
        drawn = torch.randn_like(hidden[:, :1]) if self.training else self.fixed.to(hidden.dtype)
        return rectify(hidden + self.strength * drawn + self.bias.reshape(1, -1, 1, 1).to(hidden.dtype))


class StyleGenerator(Generator):
    """noise (B, Z), label (B,) -> images (B, C, H, W), about [-1, 1]: nothing bounds them.

    ``styles`` and ``synthesize`` are its two halves, for tools that edit in between. ``truncation`` (1: none, 0: the mean
    image of the class) acts in evaluation mode. The mean style of each class is followed over updates, in a buffer.
    """

    mapped = True
    means: Tensor
    followed: Tensor

    def __init__(self, config: ImageConfig, shape: ImageShape, depth: int) -> None:
        super().__init__()
        self.truncation, self.mixing = config.truncation, config.style_mixing
        widths, size = stage_widths(config.width, depth, config.doublings), config.noise_size
        sides = [(shape.height >> level, shape.width >> level) for level in range(depth, -1, -1)]
        self.mapping = StyleMapping(size, shape.num_classes, size, config.mapping_layers)
        self.start = nn.Parameter(torch.randn(1, widths[0], *sides[0]))
        self.layers = nn.ModuleList([StyledLayer(widths[0], widths[0], size, sides[0], up=False)])
        for (before, after), side in zip(pairwise(widths), sides[1:], strict=True):
            self.layers += [StyledLayer(before, after, size, side, True), StyledLayer(after, after, size, side, False)]
        self.paint = nn.ModuleList(ModulatedConv(each, shape.channels, 1, size, demodulate=False) for each in widths)
        self.offset = nn.Parameter(torch.zeros(len(widths), shape.channels, 1, 1))
        self.num_styles = len(self.layers) + 1
        self.register_buffer("means", torch.zeros(max(shape.num_classes, 1), size))
        self.register_buffer("followed", torch.zeros(max(shape.num_classes, 1), dtype=torch.int64))
        self.settled = False

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Weights that were saved before the means were followed have none: they are estimated where they are needed."""
        for name in ("means", "followed"):
            state_dict.setdefault(prefix + name, torch.zeros_like(getattr(self, name)))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(
        self, noise: Tensor, condition: Mapping[str, Tensor], *, mode: Mode = "values", temperature: float = 1.0
    ) -> Sample:
        """Draw images; ``mode`` and ``temperature`` change nothing. Couples no samples."""
        return Sample(self.synthesize(self.styles(noise, condition)))

    def styles(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """The style of each layer, (B, L, S): mixed in training, truncated where asked afterwards."""
        style = self.latent(noise, condition)
        if self.training:
            return self._mixed(style, noise, condition)
        if self.truncation != 1.0:
            style = torch.lerp(self.mean_latent(style, condition), style, self.truncation)
        return self._everywhere(style)

    def latent(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """The style, (B, S), neither mixed nor truncated."""
        style: Tensor = self.mapping(noise, condition)
        return style

    def render(self, latent: Tensor, condition: Mapping[str, Tensor]) -> Sample:
        """Images of styles, which hold their class already."""
        return Sample(self.synthesize(self._everywhere(latent)))

    def mix(self, coarse: Tensor, fine: Tensor, condition: Mapping[str, Tensor], start: int) -> Sample:
        """Images with the styles ``coarse`` in the layers before ``start`` and ``fine`` from there on."""
        late = torch.arange(self.num_styles, device=coarse.device) >= start
        return Sample(self.synthesize(torch.where(late[:, None], fine.unsqueeze(1), coarse.unsqueeze(1))))

    def _everywhere(self, style: Tensor) -> Tensor:
        return style.unsqueeze(1).expand(-1, self.num_styles, -1)

    @torch.no_grad()
    def follow(self, noise: Tensor, condition: Mapping[str, Tensor]) -> None:
        """Move the mean style of each class in the batch: a plain mean over the first updates, then a running one."""
        self.settled = False
        label = condition.get("label")
        if label is None and self.mapping.embedding is not None:
            return
        style = self.latent(noise, condition)
        rows = torch.zeros(len(style), dtype=torch.int64, device=style.device) if label is None else label
        counts = torch.zeros_like(self.followed).index_add_(0, rows, torch.ones_like(rows))
        sums = torch.zeros_like(self.means).index_add_(0, rows, style.to(self.means.dtype))
        seen = counts > 0
        self.followed += seen
        rate = (1.0 / self.followed.clamp_min(1).to(self.means.dtype)).clamp_min(1.0 - MEAN_DECAY)
        moved = torch.lerp(self.means, sums / counts.clamp_min(1)[:, None], rate[:, None])
        self.means.copy_(torch.where(seen[:, None], moved, self.means))

    def _mixed(self, style: Tensor, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """From a layer drawn for each sample on, another noise's style, with probability ``options.style_mixing``."""
        num_layers = self.num_styles
        places = torch.arange(num_layers, device=style.device)
        styles = self._everywhere(style)
        if self.mixing == 0 or num_layers < 3:
            return styles
        other = self.mapping(torch.randn_like(noise), condition)
        start = torch.randint(1, num_layers - 1, (len(style), 1), device=style.device)
        mixed = torch.rand(len(style), 1, device=style.device) < self.mixing
        return torch.where(((places >= start) & mixed).unsqueeze(2), other.unsqueeze(1), styles)

    @torch.no_grad()
    def mean_latent(self, latent: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Each row's mean style over noise, (B, S), under its own class: truncation must not blur the class.

        As followed in training; estimated from a fixed seed for a class that was not.
        """
        label = condition.get("label")
        if label is None and self.mapping.embedding is not None:
            return self._estimated(latent, {}).expand_as(latent)
        rows = latent.new_zeros(latent.shape[0], dtype=torch.int64) if label is None else label
        means = self.means if self.settled else self._filled(rows.unique().tolist(), latent)
        return means.to(latent.dtype)[rows]

    @torch.no_grad()
    def settle(self) -> None:
        """Keep the estimated means beside the followed ones, until training goes on."""
        self.means.copy_(self._filled(list(range(len(self.means))), self.means))
        self.settled = True

    def _filled(self, rows: Sequence[int], like: Tensor) -> Tensor:
        """The means, those of ``rows`` that were not followed estimated."""
        means = self.means.to(like.dtype).clone()
        for row in rows:
            if not self.followed[row]:
                label = {"label": torch.full((MEAN_SAMPLES,), row, device=like.device)}
                means[row] = self._estimated(like, label if self.mapping.embedding is not None else {})[0]
        return means

    def _estimated(self, like: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """(1, S) the mean style of a fixed set of noises."""
        noise = torch.randn(MEAN_SAMPLES, like.shape[1], generator=torch.Generator().manual_seed(MEAN_SEED)).to(like)
        mean: Tensor = self.mapping(noise, condition).mean(0, keepdim=True)
        return mean

    def synthesize(self, styles: Tensor) -> Tensor:
        """Styles (B, L, S) -> images (B, C, H, W): each resolution adds its picture to the enlarged one before."""
        hidden = self.layers[0](self.start.expand(styles.shape[0], -1, -1, -1), styles[:, 0])
        picture = self.paint[0](hidden, styles[:, 1]) + self.offset[0]
        for level in range(1, len(self.paint)):
            first = 2 * level - 1
            hidden = self.layers[first](hidden, styles[:, first])
            hidden = self.layers[first + 1](hidden, styles[:, first + 1])
            picture = F.interpolate(picture, scale_factor=2.0, mode="bilinear", align_corners=False)
            picture = picture + self.paint[level](hidden, styles[:, first + 2]) + self.offset[level]
        return picture

    def path_lengths(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """How far an image moves for a step of its styles, (B,): root mean square over layers of the slope's norm.

        The slope is that of the image's product with white noise of one unit for the whole image.
        """
        styles = self.styles(noise, condition)
        images = self.synthesize(styles)
        along = torch.randn_like(images) / math.sqrt(images.shape[-2] * images.shape[-1])
        (slope,) = torch.autograd.grad((images * along).sum(), styles, create_graph=True)
        return (slope.square().sum(2).mean(1) + EPSILON).sqrt()


class DownBlock(nn.Module):
    """hidden (B, C, 2H, 2W) -> (B, C', H, W): two convolutions and a linear shortcut, summed at the same mean square."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first, self.second = EqualConv(before, before, 3), EqualConv(before, after, 3, down=True)
        self.skip = EqualConv(before, after, 1, down=True, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Low-passed before both strides."""
        branch: Tensor = rectify(self.second(rectify(self.first(hidden))))
        skipped: Tensor = self.skip(hidden)
        return (skipped + branch) * math.sqrt(0.5)


def group_deviation(hidden: Tensor, group: int) -> Tensor:
    """hidden (B, C, H, W) -> (B, 1, H, W): how much each group of consecutive samples differs, the mean over its places.

    Groups are consecutive, so that those of a batch are those of its parts where every part holds whole groups: one process
    equals many. A last group that is not whole is measured as it is.
    """
    parts = []
    for rows in hidden.split(group):
        deviation = (rows.var(0, correction=0) + EPSILON).sqrt().mean()
        parts.append(deviation.expand(len(rows), 1, *hidden.shape[-2:]))
    return torch.cat(parts)


class StyleDiscriminator(Discriminator):
    """images (B, C, H, W), label (B,) -> one raw logit per image, (B,)."""

    def __init__(self, config: ImageConfig, shape: ImageShape, depth: int) -> None:
        super().__init__()
        widths = stage_widths(config.discriminator_width or config.width, depth, config.doublings)[::-1]
        self.batch_group = max(config.minibatch_group, 1)
        self.read = EqualConv(shape.channels, widths[0], 1)
        self.stages = nn.ModuleList(DownBlock(before, after) for before, after in pairwise(widths))
        last, places = widths[-1], (shape.height >> depth) * (shape.width >> depth)
        self.finish = EqualConv(last + (self.batch_group > 1), last, 3)
        self.collect = EqualLinear(last * places, last)
        size = config.noise_size if shape.num_classes else 1
        self.score = EqualLinear(last, size)
        layers = config.mapping_layers
        self.mapping = StyleMapping(0, shape.num_classes, size, layers) if shape.num_classes else None

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        """Judge images; with classes, the score is the projection on the mapped class alone."""
        features, hidden = [], rectify(self.read(seen))
        for stage in self.stages:
            hidden = stage(hidden)
            features.append(hidden)
        if self.batch_group > 1:
            hidden = torch.cat([hidden, group_deviation(hidden, self.batch_group)], dim=1)
        hidden = rectify(self.collect(rectify(self.finish(hidden)).flatten(1)))
        scores = self.score(hidden)
        if self.mapping is None:
            return Verdict((Head(scores.squeeze(1), features=tuple(features)),))
        mapped = unit_square(self.mapping(scores[:, :0], condition))
        return Verdict((Head((scores * mapped).sum(1) / math.sqrt(scores.shape[1]), features=tuple(features)),))

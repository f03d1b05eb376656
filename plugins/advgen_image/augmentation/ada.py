"""The operations of adaptive augmentation, each with the same probability. Legend: B batch, C channels, H, W sides.

Geometry is resampled bilinearly with reflection at the edges, where the source has a wavelet filter; colours as published.

Source: Karras et al. 2020 (ADA), https://arxiv.org/abs/2006.06676
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from advgen_image.augmentation.masks import cut_out, on_colour, per_image
from advgen_image.augmentation.resample import constant, moved

LARGEST_SHIFT = 0.125
SCALE_DEVIATION = 0.2
BRIGHTNESS_DEVIATION, CONTRAST_DEVIATION, SATURATION_DEVIATION = 0.2, 0.5, 1.0
NOISE_DEVIATION = 0.1
CUT_SHARE = 0.5
SWAP = ((0.0, -1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 1.0, 0.0))


class AdaptiveAugmentation(nn.Module):
    """images (B, C, H, W), probability (scalar) -> the same shape.

    Args:
        operations: names to factors of the probability: ``blit`` (flips, quarter turns, moves by whole pixels), ``geometry``
            (scale, turns, stretch, moves by fractions), ``color``, ``noise`` and ``cutout``.
    """

    def __init__(self, operations: Mapping[str, float]) -> None:
        super().__init__()
        self.operations = dict(operations)

    def forward(self, images: Tensor, probability: Tensor) -> Tensor:
        """Blit and geometry in one resampling, then colour, noise, cutout."""
        share = {name: probability * factor for name, factor in self.operations.items()}
        draw = Draw(len(images), images.device)
        inverse = draw.identity()
        if "blit" in share:
            inverse = inverse @ _blit(draw, share["blit"], images)
        if "geometry" in share:
            inverse = inverse @ _geometry(draw, share["geometry"], images)
        if "blit" in share or "geometry" in share:
            images = moved(images, inverse, "reflection")
        if "color" in share:
            matrix, shift = _colour(draw, share["color"])
            images = on_colour(images, lambda colour: _through(colour, matrix, shift))
        if "noise" in share:
            strength = draw.normal(share["noise"]).abs() * NOISE_DEVIATION
            images = images + per_image(strength).to(images.dtype) * torch.randn_like(images)
        if "cutout" in share:
            images = cut_out(images, CUT_SHARE, draw.chosen(share["cutout"]))
        return images


class Draw:
    """Random numbers (B,) for one batch: what an operation does where it is chosen, and nothing elsewhere."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.count, self.device = count, device

    def chosen(self, share: Tensor) -> Tensor:
        """(B,) true with probability ``share``."""
        return torch.rand(self.count, device=self.device) < share

    def uniform(self, share: Tensor, low: float, high: float) -> Tensor:
        """Uniform where chosen, 0 elsewhere."""
        drawn = torch.rand(self.count, device=self.device) * (high - low) + low
        return drawn * self.chosen(share)

    def normal(self, share: Tensor) -> Tensor:
        """Standard normal where chosen, 0 elsewhere."""
        return torch.randn(self.count, device=self.device) * self.chosen(share)

    def whole(self, share: Tensor, below: int) -> Tensor:
        """A whole number from 0 to below ``below`` where chosen, 0 elsewhere."""
        return self.uniform(share, 0.0, float(below)).floor().clamp(max=below - 1)

    def identity(self) -> Tensor:
        """(B, 3, 3)."""
        return torch.eye(3, device=self.device).repeat(self.count, 1, 1)


def _diagonal(draw: Draw, across: Tensor, down: Tensor) -> Tensor:
    matrix = draw.identity()
    matrix[:, 0, 0], matrix[:, 1, 1] = across, down
    return matrix


def _shift(draw: Draw, across: Tensor, down: Tensor) -> Tensor:
    matrix = draw.identity()
    matrix[:, 0, 2], matrix[:, 1, 2] = across, down
    return matrix


def _turn(draw: Draw, angle: Tensor) -> Tensor:
    matrix = draw.identity()
    matrix[:, 0, 0] = matrix[:, 1, 1] = angle.cos()
    matrix[:, 0, 1], matrix[:, 1, 0] = -angle.sin(), angle.sin()
    return matrix


def _blit(draw: Draw, share: Tensor, images: Tensor) -> Tensor:
    """Flip across, quarter turns, moves by whole pixels up to an eighth of each side; (B, 3, 3)."""
    height, width = images.shape[-2:]
    flip = _diagonal(draw, 1 - 2 * draw.whole(share, 2), torch.ones(draw.count, device=draw.device))
    turn = _turn(draw, draw.whole(share, 4) * (math.pi / 2)).round()
    here = draw.chosen(share)
    moves = [(torch.rand(draw.count, device=draw.device) * 2 - 1) * LARGEST_SHIFT * side * here for side in (width, height)]
    return flip @ turn @ _shift(draw, moves[0].round(), moves[1].round())


def _geometry(draw: Draw, share: Tensor, images: Tensor) -> Tensor:
    """Scale, turn, stretch, turn, moves by fractions of a pixel; (B, 3, 3).

    Both turns together happen with probability ``share``, as a turn and a turn are a turn.
    """
    height, width = images.shape[-2:]
    once = 1 - (1 - share).sqrt()
    scale = torch.exp2(draw.normal(share) * SCALE_DEVIATION)
    stretch = torch.exp2(draw.normal(share) * SCALE_DEVIATION)
    turns = [_turn(draw, draw.uniform(once, -math.pi, math.pi)) for _ in range(2)]
    here = draw.chosen(share)
    moves = [torch.randn(draw.count, device=draw.device) * LARGEST_SHIFT * side * here for side in (width, height)]
    scaled = _diagonal(draw, 1 / scale, 1 / scale) @ turns[0] @ _diagonal(draw, 1 / stretch, stretch) @ turns[1]
    return scaled @ _shift(draw, *moves)


def _colour(draw: Draw, share: Tensor) -> tuple[Tensor, Tensor]:
    """Contrast, flip about the grey axis, hue and saturation as a matrix (B, 3, 3), and brightness (B,) as a shift."""
    axis = torch.full((3,), 3**-0.5, device=draw.device)
    along, across = axis[:, None] * axis, torch.eye(3, device=draw.device) - axis[:, None] * axis
    contrast = torch.exp2(draw.normal(share) * CONTRAST_DEVIATION)
    brightness = draw.normal(share) * BRIGHTNESS_DEVIATION
    flip = torch.eye(3, device=draw.device) - 2 * along * draw.whole(share, 2)[:, None, None]
    angle = draw.uniform(share, -math.pi, math.pi)[:, None, None]
    swap = constant(SWAP, draw.device) * 3**-0.5
    hue = along + across * angle.cos() + swap * angle.sin()
    saturation = along + across * torch.exp2(draw.normal(share) * SATURATION_DEVIATION)[:, None, None]
    matrix = saturation @ hue @ flip
    return matrix * contrast[:, None, None], (matrix * contrast[:, None, None] @ axis * brightness[:, None]) * 3**0.5


def _through(colour: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """RGB through the map; grey as three equal channels, of which the mean is kept."""
    grey = colour.shape[1] == 1
    flat = (colour.expand(-1, 3, -1, -1) if grey else colour).flatten(2)
    mapped = (matrix.to(flat.dtype) @ flat + shift.to(flat.dtype)[:, :, None]).unflatten(2, colour.shape[-2:])
    return mapped.mean(1, keepdim=True) if grey else mapped

"""DiffAugment: colour, translation and cutout, on every image. Legend: B batch, C channels, H height, W width.

Source: Zhao et al. 2020, https://arxiv.org/abs/2006.10738
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from advgen_image.augmentation.masks import cut_out, on_colour, per_image
from advgen_image.augmentation.resample import constant, moved

LARGEST_SHIFT = 0.125
CUT_SHARE = 0.5


class DiffAugment(nn.Module):
    """images (B, C, H, W), probability -> the same shape; the published policy has probability 1.

    Args:
        operations: names to factors of the probability.
    """

    def __init__(self, operations: Mapping[str, float]) -> None:
        super().__init__()
        self.operations = dict(operations)

    def forward(self, images: Tensor, probability: Tensor) -> Tensor:
        """Each operation on each image with the probability times its factor."""
        changes = {"color": _coloured, "translation": _translated, "cutout": _cut}
        for name, factor in self.operations.items():
            chosen = torch.rand(len(images), device=images.device) < probability * factor
            images = changes[name](images, chosen)
        return images


def _uniform(images: Tensor, low: float, high: float, chosen: Tensor, otherwise: float) -> Tensor:
    drawn = torch.rand(len(images), device=images.device, dtype=images.dtype) * (high - low) + low
    return per_image(torch.where(chosen, drawn, torch.full_like(drawn, otherwise)))


def _coloured(images: Tensor, chosen: Tensor) -> Tensor:
    """Brightness, then saturation about each place's mean, then contrast about the image's mean."""
    brightness = _uniform(images, -0.5, 0.5, chosen, 0.0)
    saturation, contrast = _uniform(images, 0.0, 2.0, chosen, 1.0), _uniform(images, 0.5, 1.5, chosen, 1.0)

    def change(colour: Tensor) -> Tensor:
        colour = colour + brightness
        grey = colour.mean(1, keepdim=True)
        colour = grey + (colour - grey) * saturation
        mean = colour.mean((1, 2, 3), keepdim=True)
        return mean + (colour - mean) * contrast

    return on_colour(images, change)


def _translated(images: Tensor, chosen: Tensor) -> Tensor:
    """By whole pixels, up to an eighth of each side; zeros come in from outside."""
    height, width = images.shape[-2:]
    sides = constant(((float(width), float(height)),), images.device)[0]
    largest = (sides * LARGEST_SHIFT + 0.5).long()
    drawn = torch.rand(len(images), 2, device=images.device) * (2 * largest + 1)
    shift = (drawn.long() - largest) * chosen[:, None]
    inverse = torch.eye(3, device=images.device).repeat(len(images), 1, 1)
    inverse[:, :2, 2] = shift.to(inverse.dtype)
    return moved(images, inverse, "zeros")


def _cut(images: Tensor, chosen: Tensor) -> Tensor:
    return cut_out(images, CUT_SHARE, chosen)

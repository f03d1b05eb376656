"""Layers with an equalised learning rate, and the modulated convolution. Legend: B batch, S style, C channels, H, W sides.

Weights start at N(0, 1) and are scaled where they are used, so that Adam, whose steps do not depend on the scale of a
gradient, moves every layer at the same relative speed.

Source: Karras et al. 2017 (progressive GAN), https://arxiv.org/abs/1710.10196; Karras et al. 2019 (StyleGAN2),
https://arxiv.org/abs/1912.04958
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advgen_image.families.common import SLOPE

ACTIVATION_GAIN = math.sqrt(2.0)
# Inside the roots of norms, where the slope would be infinite at 0.
EPSILON = 1e-8


def rectify(hidden: Tensor) -> Tensor:
    """Leaky rectifier, scaled to keep the mean square."""
    return F.leaky_relu(hidden, SLOPE) * ACTIVATION_GAIN


def unit_square(vectors: Tensor) -> Tensor:
    """(B, S) -> the same, each row with mean square 1."""
    return vectors * torch.rsqrt(vectors.square().mean(1, keepdim=True) + EPSILON)


class EqualLinear(nn.Module):
    """(B, in) -> (B, out); ``rate`` multiplies the learning rate of weight and bias."""

    def __init__(self, before: int, after: int, *, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before) / rate)
        self.bias = nn.Parameter(torch.full((after,), bias / rate))
        self.rate, self.scale = rate, rate / math.sqrt(before)

    def forward(self, hidden: Tensor) -> Tensor:
        """An affine map with the weights scaled at run time."""
        return F.linear(hidden, self.weight * self.scale, self.bias * self.rate)


class EqualConv(nn.Module):
    """(B, C, H, W) -> (B, C', H, W), or half as high and wide after a low-pass."""

    def __init__(self, before: int, after: int, size: int, *, down: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before, size, size))
        self.bias = nn.Parameter(torch.zeros(after)) if bias else None
        self.scale, self.size, self.down = 1.0 / math.sqrt(before * size * size), size, down

    def forward(self, hidden: Tensor) -> Tensor:
        """Low-pass before the stride, so that nothing folds over."""
        weight = self.weight * self.scale
        if not self.down:
            return F.conv2d(hidden, weight, self.bias, padding=self.size // 2)
        edge = self.size // 2 + 1
        return F.conv2d(blur(F.pad(hidden, (edge, edge, edge, edge))), weight, self.bias, stride=2)


def blur(images: Tensor, gain: float = 1.0) -> Tensor:
    """(B, C, H, W) -> (B, C, H - 3, W - 3): the low-pass [1, 3, 3, 1] / 8 along each axis, times ``gain``."""
    for axis in (-1, -2):
        length = images.shape[axis] - 3
        outer = images.narrow(axis, 0, length) + images.narrow(axis, 3, length)
        inner = images.narrow(axis, 1, length) + images.narrow(axis, 2, length)
        images = (outer + 3 * inner) * (math.sqrt(gain) / 8)
    return images


class ModulatedConv(nn.Module):
    """hidden (B, C, H, W), style (B, S) -> (B, C', H, W), or twice as high and wide.

    Each sample has its own weights: input channels scaled by its style, then every output channel brought back to the same
    expected size. Both are products beside one convolution that all samples share.
    """

    def __init__(self, before: int, after: int, size: int, style: int, *, up: bool = False, demodulate: bool = True) -> None:
        super().__init__()
        self.affine = EqualLinear(style, before, bias=1.0)
        self.weight = nn.Parameter(torch.randn(after, before, size, size))
        self.scale, self.size = 1.0 / math.sqrt(before * size * size), size
        self.up, self.demodulate = up, demodulate

    def forward(self, hidden: Tensor, style: Tensor) -> Tensor:
        """Modulate, convolve, demodulate."""
        scales, weight = self.affine(style), self.weight * self.scale
        hidden = hidden * scales.to(hidden.dtype)[:, :, None, None]
        if self.up:
            wide = F.conv_transpose2d(hidden, weight.transpose(0, 1), stride=2)
            hidden = blur(F.pad(wide, (1, 1, 1, 1)), gain=4.0)
        else:
            hidden = F.conv2d(hidden, weight, padding=self.size // 2)
        if not self.demodulate:
            return hidden
        power = F.linear(scales.square(), weight.square().sum((2, 3)))
        return hidden * torch.rsqrt(power + EPSILON).to(hidden.dtype)[:, :, None, None]

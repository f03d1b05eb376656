"""Spectral normalisation and self-attention, for the residual family.

Legend: B batch, C channels, H height, W width, P places. Source: Miyato et al. 2018 (spectral norm),
https://arxiv.org/abs/1802.05957; Zhang et al. 2018 (self-attention), https://arxiv.org/abs/1805.08318
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

FIRST_ITERATIONS = 15
# Keeps the direction of a weight of zeros finite.
SMALLEST_NORM = 1e-12


class SpectralNorm(nn.Module):
    """weight (out, ...) -> the same, divided by its largest singular value, which one power iteration a pass follows.

    The iteration runs only where the weight is being trained. A player that is frozen or read without gradient keeps its
    state, so that the generator's update changes nothing in the discriminator and evaluation repeats itself.
    """

    left: Tensor
    right: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        matrix = weight.detach().flatten(1)
        self.register_buffer("left", F.normalize(torch.randn(matrix.shape[0]), dim=0))
        self.register_buffer("right", F.normalize(torch.randn(matrix.shape[1]), dim=0))
        for _ in range(FIRST_ITERATIONS):
            self._follow(matrix)

    @torch.no_grad()
    def _follow(self, matrix: Tensor) -> None:
        self.left.copy_(F.normalize(matrix @ self.right, dim=0, eps=SMALLEST_NORM))
        self.right.copy_(F.normalize(matrix.t() @ self.left, dim=0, eps=SMALLEST_NORM))

    def forward(self, weight: Tensor) -> Tensor:
        """Divide; in full precision, as bfloat16 has too few digits for the iteration."""
        exact = contextlib.nullcontext() if weight.is_meta else torch.autocast(weight.device.type, enabled=False)
        with exact:
            matrix = weight.flatten(1)
            if self.training and weight.requires_grad and torch.is_grad_enabled():
                self._follow(matrix.detach())
            # Copies: the next pass moves the buffers while this pass's graph still needs their values.
            largest = torch.dot(self.left.clone(), matrix @ self.right.clone())
            return weight / (largest + SMALLEST_NORM)


def spectral(layer: nn.Module, wanted: bool = True) -> nn.Module:
    """The same layer, its weight normalised where that is wanted."""
    if wanted:
        weight = layer.weight
        assert isinstance(weight, Tensor)  # given convolutions, linear layers and embeddings alone
        parametrize.register_parametrization(layer, "weight", SpectralNorm(weight))
    return layer


class SelfAttention(nn.Module):
    """hidden (B, C, H, W) -> the same: each place adds what it looks for elsewhere; at the start it adds nothing.

    Plain products and a softmax, because fused attention has no second derivative.
    """

    def __init__(self, channels: int, normalized: bool) -> None:
        super().__init__()
        inner, content = max(channels // 8, 1), max(channels // 2, 1)
        self.query = spectral(nn.Conv2d(channels, inner, 1, bias=False), normalized)
        self.key = spectral(nn.Conv2d(channels, inner, 1, bias=False), normalized)
        self.content = spectral(nn.Conv2d(channels, content, 1, bias=False), normalized)
        self.out = spectral(nn.Conv2d(content, channels, 1, bias=False), normalized)
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, hidden: Tensor) -> Tensor:
        """Keys and contents are pooled by two, as in the source: a quarter of the cost."""
        query = self.query(hidden).flatten(2)  # (B, inner, P)
        key, content = (F.max_pool2d(layer(hidden), 2).flatten(2) for layer in (self.key, self.content))
        looked = torch.softmax(query.transpose(1, 2) @ key, dim=2)  # (B, P, P / 4)
        found = (content @ looked.transpose(1, 2)).unflatten(2, hidden.shape[-2:])
        return torch.addcmul(hidden, self.gain.to(hidden.dtype), self.out(found))

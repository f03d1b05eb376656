"""Short-time Fourier transforms as matrix products: they export, and allow double backward.

Legend: B batch, T samples, F frames, K bins (n_fft // 2 + 1).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def fourier_basis(n_fft: int) -> Tensor:
    """(n_fft, 2 K) cosines, then negative sines, of the bins' frequencies, in float64."""
    angle = 2 * torch.pi * torch.arange(n_fft, dtype=torch.float64)[:, None] * torch.arange(n_fft // 2 + 1) / n_fft
    return torch.cat([angle.cos(), -angle.sin()], dim=1)


class ShortTimeFourier(nn.Module):
    """waveform (B, T) -> (B, F, 2 K) real then imaginary parts; a sine of amplitude 1 peaks at 0.5."""

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        window = torch.hann_window(n_fft, dtype=torch.float64)
        basis = window[:, None] * fourier_basis(n_fft) / window.sum()
        self.register_buffer("basis", basis.to(torch.get_default_dtype()), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        padded = F.pad(waveform, (self.n_fft // 2, self.n_fft // 2))
        return padded.unfold(-1, self.n_fft, self.hop) @ self.basis


class InverseShortTimeFourier(nn.Module):
    """real, imaginary (B, F, K) -> waveform (B, F * hop), windowed overlap-add divided by the summed squared window.

    The frames are centred on their hops (half of n_fft - hop is cut from both ends), so the length is exact.
    """

    def __init__(self, n_fft: int, hop: int, num_frames: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        window = torch.hann_window(n_fft, dtype=torch.float64)
        weight = torch.full((n_fft // 2 + 1,), 2.0, dtype=torch.float64)
        weight[0] = weight[-1] = 1.0
        basis = (fourier_basis(n_fft) * weight.repeat(2)).T * window * (window.sum() / n_fft)
        envelope = self._overlap_add((window**2).expand(1, num_frames, n_fft))
        dtype = torch.get_default_dtype()
        self.register_buffer("basis", basis.to(dtype), persistent=False)
        self.register_buffer("envelope", envelope.clamp_min(1e-4).to(dtype), persistent=False)

    def forward(self, real: Tensor, imaginary: Tensor) -> Tensor:
        return self._overlap_add(torch.cat([real, imaginary], dim=-1) @ self.basis) / self.envelope

    def _overlap_add(self, frames: Tensor) -> Tensor:
        num_frames = frames.shape[1]
        total = (num_frames - 1) * self.hop + self.n_fft
        summed = F.fold(frames.transpose(1, 2), (1, total), (1, self.n_fft), stride=(1, self.hop))
        cut = (self.n_fft - self.hop) // 2
        return summed[:, 0, 0, cut : cut + num_frames * self.hop]

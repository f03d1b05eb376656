"""Short-time Fourier transform and its inverse; the inverse is a matrix product, so that generators export.

Legend: B batch, T samples, F frames, K bins (n_fft // 2 + 1).
"""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COMPRESSION = 0.3
# Squared magnitude of what counts as silence: the compression's slope stays finite there.
SILENCE = 1e-6
# Brings compressed magnitudes of speech and music near 1.
SCALE = 2.0


def fourier_basis(n_fft: int) -> Tensor:
    """(n_fft, 2 K) cosines, then negative sines, of the bins' frequencies, in float64."""
    angle = 2 * torch.pi * torch.arange(n_fft, dtype=torch.float64)[:, None] * torch.arange(n_fft // 2 + 1) / n_fft
    return torch.cat([angle.cos(), -angle.sin()], dim=1)


class ShortTimeFourier(nn.Module):
    """waveform (B, T) -> real and imaginary parts (B, F, K); a sine of amplitude 1 peaks at 0.5."""

    window: Tensor

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        window = torch.hann_window(n_fft, dtype=torch.float64)
        self.register_buffer("window", (window / window.sum()).to(torch.get_default_dtype()), persistent=False)

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        padded = F.pad(waveform, (self.n_fft // 2, self.n_fft // 2))
        # Half precision has no complex type.
        with contextlib.nullcontext() if waveform.is_meta else torch.autocast(waveform.device.type, enabled=False):
            bins = torch.fft.rfft(padded.to(self.window.dtype).unfold(-1, self.n_fft, self.hop) * self.window)
        return bins.real, bins.imag


class PhaseAdvance(nn.Module):
    """waveform (B, T) -> (B, 3, F, K): compressed magnitude, and cosine and sine of the phase's advance, times magnitude.

    A steady tone is constant here whatever its phase, which nobody hears. Magnitudes are to the power 0.3, as loudness is.

    Source: instantaneous frequency, Engel et al. 2019 (GANSynth), https://arxiv.org/abs/1902.08710; power-law compression,
    Ephrat et al. 2018, https://arxiv.org/abs/1804.03619
    """

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.transform = ShortTimeFourier(n_fft, hop)

    def forward(self, waveform: Tensor) -> Tensor:
        real, imaginary = self.transform(waveform)
        power = real.square() + imaginary.square() + SILENCE
        magnitude = power ** (COMPRESSION / 2) - SILENCE ** (COMPRESSION / 2)
        now, before = (real[:, 1:], imaginary[:, 1:]), (real[:, :-1], imaginary[:, :-1])
        # The product's size is the square of a magnitude: its power 0.15 is a magnitude to the power 0.3.
        gain = (power[:, 1:] * power[:, :-1]) ** ((COMPRESSION / 2 - 1) / 2)
        cosine = (now[0] * before[0] + now[1] * before[1]) * gain
        sine = (now[1] * before[0] - now[0] * before[1]) * gain
        first = (0, 0, 1, 0)
        return SCALE * torch.stack([magnitude, F.pad(cosine, first), F.pad(sine, first)], dim=1)


class InverseShortTimeFourier(nn.Module):
    """real, imaginary (B, F, K) -> waveform (B, F * hop), windowed overlap-add divided by the summed squared window.

    The frames are centred on their hops (half of n_fft - hop is cut from both ends), so the length is exact.
    """

    basis: Tensor
    envelope: Tensor

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

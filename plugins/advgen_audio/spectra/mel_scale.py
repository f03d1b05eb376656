"""Mel scales and triangular mel filters. Legend: K bins, M mel bands."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BREAK_HZ, BREAK_MEL = 1000.0, 15.0
HZ_PER_MEL = BREAK_HZ / BREAK_MEL
LOG_STEP = math.log(6.4) / 27.0


def hz_to_mel(frequency_hz: float, scale: str) -> float:
    """Convert a frequency to mels.

    ``htk``: 2595 log10(1 + f / 700), so 1000 Hz is 1000 mel within 0.02. ``slaney``: linear up to 1000 Hz (15 mel) and
    logarithmic above, 27 mel for a factor of 6.4.

    Source: O'Shaughnessy 1987; Slaney 1998, Auditory Toolbox, https://engineering.purdue.edu/~malcolm/interval/1998-010/
    """
    if scale == "htk":
        return 2595.0 * math.log10(1.0 + frequency_hz / 700.0)
    return frequency_hz / HZ_PER_MEL if frequency_hz < BREAK_HZ else BREAK_MEL + math.log(frequency_hz / BREAK_HZ) / LOG_STEP


def mel_to_hz(mels: Tensor, scale: str) -> Tensor:
    """Convert mels to frequencies in Hz, the inverse of :func:`hz_to_mel`."""
    if scale == "htk":
        return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    return torch.where(mels < BREAK_MEL, HZ_PER_MEL * mels, BREAK_HZ * torch.exp(LOG_STEP * (mels - BREAK_MEL)))


def mel_filter_bank(
    num_bins: int, fmin_hz: float, fmax_hz: float, num_mels: int, rate_hz: int, *, norm: str | None, scale: str
) -> Tensor:
    """Compute triangular filters (K, M) whose corners are evenly spaced in mels.

    Args:
        num_bins: K, frequencies from 0 to half the rate.
        norm: ``slaney`` gives every triangle the area of 1 Hz; None gives it the height 1.
        scale: ``htk`` or ``slaney``.

    Returns:
        Weights of bins in bands; a band narrower than a bin may be empty. Numbers equal those of
        ``torchaudio.functional.melscale_fbanks``.
    """
    bins_hz = torch.linspace(0, rate_hz // 2, num_bins)
    corners_mel = torch.linspace(hz_to_mel(fmin_hz, scale), hz_to_mel(fmax_hz, scale), num_mels + 2)
    corners_hz = mel_to_hz(corners_mel, scale)
    widths_hz = corners_hz.diff()
    distances_hz = corners_hz - bins_hz[:, None]  # (K, M + 2)
    rising, falling = -distances_hz[:, :-2] / widths_hz[:-1], distances_hz[:, 2:] / widths_hz[1:]
    triangles = torch.minimum(rising, falling).clamp_min(0.0)
    return triangles * (2.0 / (corners_hz[2:] - corners_hz[:-2])) if norm == "slaney" else triangles

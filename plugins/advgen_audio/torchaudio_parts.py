"""Resampling and mel filter banks from torchaudio if it loads, otherwise from our own code with the same numbers.

torchaudio is linked to one build of torch and fails to load with another. Legend: T samples, K bins, M mel bands.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch
from torch import Tensor

from advgen import try_import
from advgen_audio.spectra.mel_scale import mel_filter_bank as own_mel_filter_bank
from advgen_audio.spectra.resampling import resample as own_resample


def resample(waveform: Tensor, rate_hz: int, to_hz: int) -> Tensor:
    """Resample (..., T) from one rate to another; return it unchanged if the rates are equal."""
    if rate_hz == to_hz:
        return waveform
    torchaudio = usable_torchaudio()
    if torchaudio is None:
        return own_resample(waveform, rate_hz, to_hz)
    resampled: Tensor = torchaudio.resample(waveform, rate_hz, to_hz)
    return resampled


def mel_filter_bank(
    num_bins: int, fmin_hz: float, fmax_hz: float, num_mels: int, rate_hz: int, *, norm: str | None, scale: str
) -> Tensor:
    """Compute triangular mel filters (K, M); arguments as for :func:`advgen_audio.spectra.mel_scale.mel_filter_bank`."""
    torchaudio = usable_torchaudio()
    if torchaudio is None:
        return own_mel_filter_bank(num_bins, fmin_hz, fmax_hz, num_mels, rate_hz, norm=norm, scale=scale)
    with warnings.catch_warnings():
        # A band narrower than a bin is empty; that costs a feature, not correctness.
        warnings.filterwarnings("ignore", message=".*mel filterbank has all zero values.*")
        filters: Tensor = torchaudio.melscale_fbanks(num_bins, fmin_hz, fmax_hz, num_mels, rate_hz, norm=norm, mel_scale=scale)
    return filters


@functools.cache
def usable_torchaudio() -> Any:
    """Return ``torchaudio.functional`` if it loads and both functions work when called as here; otherwise None."""
    functional: Any = try_import("torchaudio.functional").module
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            functional.resample(torch.zeros(8), 2, 1)
            functional.melscale_fbanks(9, 0.0, 8.0, 2, 16, norm="slaney", mel_scale="slaney")
    except Exception:  # it is None, or a later release has changed its interface
        return None
    return functional

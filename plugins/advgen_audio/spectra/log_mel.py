"""Log-mel spectrograms for judges and pictures. Legend: B batch, T samples, M mel bands, F frames."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from advgen_audio.torchaudio_parts import torchaudio_part

NUM_MELS = 64
FLOOR = 1e-5


def log_mel(waveforms: Tensor, rate_hz: int) -> Tensor:
    """waveforms (B, 1, T) -> natural log of mel magnitudes (B, M, F), at least log 1e-5, on 64 bands up to half the rate."""
    n_fft = max(128, 2 ** round(6 + torch.log2(torch.tensor(rate_hz / 1000.0)).item()))
    window = torch.hann_window(n_fft, device=waveforms.device)
    magnitude = (
        torch.stft(waveforms[:, 0].float(), n_fft, n_fft // 8, window=window, pad_mode="constant", return_complex=True).abs()
        / window.sum()
    )
    return (mel_filters(n_fft, rate_hz).to(magnitude.device).T @ magnitude).clamp_min(FLOOR).log()


def mel_filters(n_fft: int, rate_hz: int) -> Tensor:
    """Triangular filters (n_fft // 2 + 1, 64) on the HTK mel scale."""
    with warnings.catch_warnings():
        # A band narrower than a bin is empty; that costs a feature, not correctness.
        warnings.filterwarnings("ignore", message=".*mel filterbank has all zero values.*")
        return torchaudio_part("functional").melscale_fbanks(n_fft // 2 + 1, 0.0, rate_hz / 2, NUM_MELS, rate_hz)

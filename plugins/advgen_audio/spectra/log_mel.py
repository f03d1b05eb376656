"""Log-mel spectrograms for judges and pictures. Legend: B batch, T samples, M mel bands, F frames."""

from __future__ import annotations

import torch
from torch import Tensor

from advgen_audio.spectra.front_ends import MelSpec, mel_filters

NUM_MELS = 64
FLOOR = 1e-5


def log_mel(waveforms: Tensor, rate_hz: int) -> Tensor:
    """waveforms (B, 1, T) -> natural log of mel magnitudes (B, M, F), at least log 1e-5, on 64 bands up to half the rate."""
    n_fft = max(128, 2 ** round(6 + torch.log2(torch.tensor(rate_hz / 1000.0)).item()))
    window = torch.hann_window(n_fft, device=waveforms.device)
    spec = MelSpec(rate_hz=rate_hz, n_fft=n_fft, hop=n_fft // 8, num_mels=NUM_MELS, scale="htk", norm="none")
    magnitude = (
        torch.stft(waveforms[:, 0].float(), n_fft, spec.hop, window=window, pad_mode="constant", return_complex=True).abs()
        / window.sum()
    )
    return (mel_filters(spec).to(magnitude.device) @ magnitude).clamp_min(FLOOR).log()

"""Mel cepstral distortion, for evaluations of vocoders. Legend: B clips, T samples, M mel bands, F frames, K coefficients."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from advgen_audio.spectra.front_ends import MelSpec, MelSpectrogram

ORDER = 13
NUM_BANDS = 40
WINDOW_SECONDS, HOP_SECONDS = 0.025, 0.005
FLOOR_DB = -80.0
DECIBELS = 10 * math.sqrt(2) / math.log(10)
"""From a distance of cepstra to decibels: the root mean square difference of the smooth spectra they stand for."""


def cepstral_spec(rate_hz: int) -> MelSpec:
    """The front end: 25 ms every 5 ms, 40 HTK bands up to half the rate, floored about 90 dB below a full-scale sine."""
    window, hop = round(WINDOW_SECONDS * rate_hz), round(HOP_SECONDS * rate_hz)
    # A sine of amplitude 1 has a quarter of the window's length in its strongest bin, and 10 dB more in a band of them.
    floor = 10 ** (FLOOR_DB / 20) * window / 4
    return MelSpec(
        rate_hz=rate_hz,
        n_fft=2 ** math.ceil(math.log2(2 * window)),
        hop=hop,
        window=window,
        num_mels=NUM_BANDS,
        scale="htk",
        norm="none",
        floor=floor,
        padding="center",
        pad_mode="zero",
    )


def mel_cepstra(log_mel: Tensor) -> Tensor:
    """Natural log mels (..., M, F) -> one-sided cepstra (..., 13, F), c1 to c13; c0, the level, is left out.

    A ripple a cos(pi k (m + 1/2) / M) over the bands gives c_k = a, all others 0.
    """
    bands = log_mel.shape[-2]
    angles = torch.arange(1, ORDER + 1, device=log_mel.device)[:, None] * (torch.arange(bands, device=log_mel.device) + 0.5)
    return 2 / bands * (angles * math.pi / bands).cos().to(log_mel) @ log_mel


@torch.no_grad()
def mel_cepstral_distortion(real: Tensor, copies: Tensor, lengths: Tensor, rate_hz: int) -> float:
    """Mean over clips of each clip's mean frame distance in dB, frame by frame without warping: copies are aligned.

    Args:
        real: (B, T) clips.
        copies: (B, T) copies of them.
        lengths: (B,) samples that count; what follows is taken as silence on both sides.
        rate_hz: of both.

    Returns:
        10 sqrt(2) / ln 10 times the Euclidean distance of c1 to c13; 0 at equality and where only the level differs.

    Source: Kubichek 1993, https://doi.org/10.1109/PACRIM.1993.407206
    """
    spec = cepstral_spec(rate_hz)
    mel = MelSpectrogram(spec).to(real.device)
    lengths = lengths.to(real.device)
    within = torch.arange(real.shape[1], device=real.device) < lengths[:, None]
    one, other = (mel_cepstra(mel(torch.where(within, waveforms, 0))) for waveforms in (real, copies))
    distance = DECIBELS * (one - other).square().sum(1).sqrt()
    inside = torch.arange(distance.shape[1], device=real.device) * spec.hop < lengths[:, None]
    return float(((distance * inside).sum(1) / inside.sum(1).clamp_min(1)).mean())

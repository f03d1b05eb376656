"""Sound files to waveforms, for training and for copies alike. Legend: T samples, K channels."""

from __future__ import annotations

from pathlib import Path

import soundfile
import torch
from torch import Tensor

# 80 dB below full scale.
SILENT_PEAK = 1e-4


def read_channels(path: Path, start: int = 0, num_frames: int = -1) -> tuple[Tensor, int]:
    """Channels (T, K) float32 of a file, or of ``num_frames`` of its samples from ``start`` on, and their rate.

    Raises:
        ValueError: with the reason why they cannot be used.
    """
    try:
        values, rate_hz = soundfile.read(path, num_frames, start, dtype="float32", always_2d=True)
    except (RuntimeError, OSError) as error:
        raise ValueError(unreadable(path, error)) from error
    channels = torch.from_numpy(values)
    if not len(channels):
        raise ValueError("holds no samples")
    if not bool(torch.isfinite(channels).all()):
        raise ValueError("holds samples that are not finite")
    return channels, int(rate_hz)


def unreadable(path: Path, error: Exception) -> str:
    """Why a file could not be opened or decoded."""
    try:
        return "0 bytes" if path.stat().st_size == 0 else f"not readable as sound ({error})"
    except OSError as missing:
        return f"cannot be opened ({missing.strerror})"


def silence(num_channels: int) -> str:
    """What is wrong with a clip that is silent once it is one channel."""
    return "is silent" if num_channels == 1 else f"is silent once its {num_channels} channels are averaged"

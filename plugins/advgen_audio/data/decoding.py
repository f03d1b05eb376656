"""Sound files to waveforms, for training and for copies alike. Legend: T samples, K channels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import soundfile
import torch
from torch import Tensor

from advgen import most_unpacked, size_text
from advgen_audio.torchaudio_parts import resample

# 80 dB below full scale.
SILENT_PEAK = 1e-4


RATES_HZ = (100, 1_000_000)
MOST_CHANNELS = 256
SAMPLE_BYTES = 2
"""Bytes of a decoded sample. Sound counts as 16 bits, as in the cache."""
SMALLEST_LIMIT = 128 * 2**20
LARGEST_FILTER = 2**26
"""Most numbers in a resampling filter, which has one row per output phase."""


def header_of(path: Path) -> Any:
    """Return a file's header, if the file can hold as much as it promises.

    Raises:
        ValueError: with the reason why it cannot be used.
    """
    try:
        info, size = soundfile.info(path), path.stat().st_size
    except (RuntimeError, OSError) as error:
        raise ValueError(unreadable(path, error)) from error
    if not RATES_HZ[0] <= info.samplerate <= RATES_HZ[1]:
        raise ValueError(f"its header says {info.samplerate} Hz, expected {RATES_HZ[0]} to {RATES_HZ[1]}")
    if not 1 <= info.channels <= MOST_CHANNELS:
        raise ValueError(f"its header says {info.channels} channels, expected at most {MOST_CHANNELS}")
    if info.frames * info.channels * SAMPLE_BYTES > (most := most_decoded(size)):
        raise ValueError(
            f"its header promises {info.frames} samples in {info.channels} channels, too many for a file of {size} bytes "
            f"(limit {size_text(most)}); cut it, or set ADVGEN_MAX_UNPACKED_GIB to a larger number of GiB if you trust it"
        )
    return info


def most_decoded(num_bytes: int) -> int:
    """Return the most bytes of 16-bit samples that a file of ``num_bytes`` may decode to."""
    return most_unpacked(num_bytes, smallest=SMALLEST_LIMIT)


def resampled(clip: Tensor, rate_hz: int, to_hz: int, size: int) -> Tensor:
    """Resample a clip (T,) of a file of ``size`` bytes, if neither the result nor the filter is too large.

    Raises:
        ValueError: with the reason why it cannot be.
    """
    common = math.gcd(rate_hz, to_hz)
    if rate_hz // common * (to_hz // common) > LARGEST_FILTER:
        raise ValueError(
            f"resampling from {rate_hz} to {to_hz} Hz needs too large a filter; resample it, or set options.sample_rate_hz"
        )
    if len(clip) * to_hz // rate_hz * SAMPLE_BYTES > most_decoded(size):
        raise ValueError(f"its {len(clip)} samples at {rate_hz} Hz would be too many at {to_hz} Hz; cut it into parts")
    return resample(clip, rate_hz, to_hz)


def read_channels(path: Path, start: int = 0, num_frames: int = -1) -> tuple[Tensor, int]:
    """Channels (T, K) float32 of a file, or of ``num_frames`` of its samples from ``start`` on, and their rate.

    Raises:
        ValueError: with the reason why they cannot be used.
    """
    header_of(path)
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

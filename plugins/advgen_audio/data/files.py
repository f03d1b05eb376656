"""Sound files in every format that samples are written in. Legend: B batch, T samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

GAP_SECONDS = 0.1


@dataclass(frozen=True)
class SoundFormat:
    """How samples are stored.

    Args:
        suffix: of the file's name.
        container, subtype: as soundfile has them.
        bits: of an integer sample; None: floats, which keep what lies beyond full scale.
        about: a few words for users.
    """

    suffix: str
    container: str
    subtype: str
    bits: int | None
    about: str

    def encode(self, waveform: Tensor) -> np.ndarray:
        """[-1, 1] to what the file holds; integers are clipped before scaling, so that no peak wraps around, and NaN is
        silence. 24 bits stand at the upper end of 32, as soundfile takes them."""
        clean = torch.nan_to_num(waveform.detach().float().cpu(), nan=0.0)
        if self.bits is None:
            return clean.numpy()
        if self.bits == 16:
            return to_int16(clean)
        largest = 2 ** (self.bits - 1) - 1
        return ((clean.double().clamp(-1, 1) * largest).round().to(torch.int32) << (32 - self.bits)).numpy()


FORMATS: dict[str, SoundFormat] = {
    "wav16": SoundFormat(".wav", "WAV", "PCM_16", 16, "WAV, 16 bits"),
    "wav24": SoundFormat(".wav", "WAV", "PCM_24", 24, "WAV, 24 bits"),
    "float": SoundFormat(".wav", "WAV", "FLOAT", None, "WAV, 32-bit floats"),
    "flac": SoundFormat(".flac", "FLAC", "PCM_16", 16, "FLAC, 16 bits"),
}
DEFAULT_FORMAT = "wav16"


class SoundWriter:
    """A sound file of one channel, written part by part: ``with SoundWriter(path, rate_hz, "flac") as file: ...``."""

    def __init__(self, path: Path, rate_hz: int, file_format: str) -> None:
        self.format = FORMATS[file_format]
        self.file = soundfile.SoundFile(path, "w", rate_hz, 1, self.format.subtype, format=self.format.container)

    def write(self, waveform: Tensor) -> None:
        """Append (T,)."""
        self.file.write(self.format.encode(waveform))

    def __enter__(self) -> SoundWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def to_int16(waveform: Tensor) -> np.ndarray:
    """[-1, 1] to 16-bit integers, clipped before scaling so that no peak wraps around; NaN becomes silence."""
    clean = torch.nan_to_num(waveform.detach().float().cpu(), nan=0.0).clamp(-1, 1)
    return (clean * 32767).round().to(torch.int16).numpy()


def write_clips(
    waveforms: Sequence[Tensor], rate_hz: int, folder: Path, start: int, file_format: str = DEFAULT_FORMAT
) -> list[Path]:
    """Write clips (1, T) as ``00000.wav`` (or ``.flac``) and so on, counted from ``start``."""
    folder.mkdir(parents=True, exist_ok=True)
    suffix = FORMATS[file_format].suffix
    paths = [folder / f"{start + index:05d}{suffix}" for index in range(len(waveforms))]
    for path, waveform in zip(paths, waveforms, strict=True):
        with SoundWriter(path, rate_hz, file_format) as file:
            file.write(waveform[0])
    return paths


def write_strip(waveforms: Sequence[Tensor], rate_hz: int, path: Path) -> Path:
    """Write clips (T,) one after the other, 0.1 seconds apart, as 16-bit WAV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    gap = torch.zeros(int(GAP_SECONDS * rate_hz))
    with SoundWriter(path, rate_hz, DEFAULT_FORMAT) as file:
        for waveform in waveforms:
            file.write(waveform)
            file.write(gap)
    return path

"""Sound files and spectrogram pictures. Legend: B batch, T samples, M mel bands, F frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor

from advgen_audio.mel import log_mel

MAX_STRIP = 16
COLUMNS = 4
GAP_SECONDS = 0.1
PICTURE_SCALE = 2
# Quiet to loud: near black, violet, red, orange, pale yellow.
COLOURS = ((4, 2, 20), (70, 15, 110), (185, 50, 90), (245, 140, 40), (252, 250, 190))
LOUDEST, QUIETEST = 0.0, -9.0


def to_int16(waveform: Tensor) -> np.ndarray:
    """[-1, 1] to 16-bit integers, clipped before scaling so that no peak wraps around; NaN becomes silence."""
    clean = torch.nan_to_num(waveform.detach().float().cpu(), nan=0.0).clamp(-1, 1)
    return (clean * 32767).round().to(torch.int16).numpy()


def write_clips(waveforms: Tensor, rate_hz: int, folder: Path, start: int) -> list[Path]:
    """Write (B, 1, T) as ``00000.wav`` and so on, counted from ``start``."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{start + index:05d}.wav" for index in range(len(waveforms))]
    for path, waveform in zip(paths, waveforms, strict=True):
        soundfile.write(path, to_int16(waveform[0]), rate_hz, subtype="PCM_16")
    return paths


def write_overview(waveforms: Tensor, rate_hz: int, stem: Path) -> list[Path]:
    """Write up to 16 clips (B, 1, T) one after the other as WAV, and their spectrograms, four in a row, as PNG."""
    shown = torch.nan_to_num(waveforms[:MAX_STRIP].detach().float().cpu()).clamp(-1, 1)
    stem.parent.mkdir(parents=True, exist_ok=True)
    sound, picture = stem.with_name(stem.name + ".wav"), stem.with_name(stem.name + ".png")
    gap = torch.zeros(len(shown), int(GAP_SECONDS * rate_hz))
    soundfile.write(sound, to_int16(torch.cat([shown[:, 0], gap], dim=1).flatten()), rate_hz, subtype="PCM_16")
    tiles = colour(log_mel(shown, rate_hz).flip(1))
    image = Image.fromarray(tile(tiles).numpy())
    image.resize((image.width * PICTURE_SCALE, image.height * PICTURE_SCALE), Image.Resampling.NEAREST).save(picture)
    return [sound, picture]


def colour(mels: Tensor) -> Tensor:
    """Log magnitudes (B, M, F) to colours (B, M, F, 3) uint8."""
    table = torch.tensor(COLOURS, dtype=torch.float32)
    place = ((mels - QUIETEST) / (LOUDEST - QUIETEST)).clamp(0, 1) * (len(table) - 1)
    below = place.floor().long().clamp(max=len(table) - 2)
    share = (place - below)[..., None]
    return (table[below] * (1 - share) + table[below + 1] * share).round().to(torch.uint8)


def tile(tiles: Tensor) -> Tensor:
    """(B, H, W, 3) to one picture, four in a row, with a white line between."""
    padded = torch.nn.functional.pad(tiles, (0, 0, 1, 1, 1, 1), value=255)
    missing = -len(padded) % COLUMNS if len(padded) > COLUMNS else 0
    padded = torch.cat([padded, padded.new_full((missing, *padded.shape[1:]), 255)])
    rows = padded.split(COLUMNS)
    return torch.cat([torch.cat(list(row), dim=1) for row in rows], dim=0)

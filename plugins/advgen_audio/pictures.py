"""Pictures of clips: each one's waveform above its spectrogram, alone or real beside generated.

Legend: T samples, M mel bands, F frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from advgen_audio.spectra.log_mel import log_mel

PANELS_PER_ROW = 4
WIDTH, WAVE_HEIGHT, MEL_HEIGHT = 256, 44, 84
MARGIN, TITLE, TICKS, GAP, PAIR_GAP = 48, 18, 16, 8, 26
HEADER = 26
INK, FAINT, PAPER, WAVE = (30, 30, 40), (150, 150, 160), (255, 255, 255), {False: (190, 80, 30), True: (30, 90, 160)}
# Quiet to loud: near black, violet, red, orange, pale yellow.
COLOURS = ((4, 2, 20), (70, 15, 110), (185, 50, 90), (245, 140, 40), (252, 250, 190))
LOUDEST, QUIETEST = 0.0, -9.0
DECIBELS = 8.685889638  # in a neper


@dataclass(frozen=True)
class Clip:
    """A waveform (T,) with its title."""

    waveform: Tensor
    title: str
    real: bool = False


def draw_clips(groups: Sequence[Sequence[Clip]], rate_hz: int, header: str) -> Image.Image:
    """Groups of clips (one, or real and generated) in rows of four panels; those of a group share one scale."""
    size, per_row = len(groups[0]), max(1, PANELS_PER_ROW // len(groups[0]))
    columns, rows = min(per_row, len(groups)), -(-len(groups) // per_row)
    step = size * (WIDTH + GAP) + PAIR_GAP
    height = TITLE + WAVE_HEIGHT + MEL_HEIGHT + TICKS
    image = Image.new("RGB", (MARGIN + columns * step, HEADER + rows * (height + GAP)), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, 5), header, INK, _font(13))
    for place, group in enumerate(groups):
        x, y = MARGIN + place % per_row * step, HEADER + place // per_row * (height + GAP)
        if place % per_row == 0:
            _frequencies(draw, y + TITLE + WAVE_HEIGHT, rate_hz)
        scale = max(float(_clean(clip.waveform).abs().max()) for clip in group) or 1.0
        for index, clip in enumerate(group):
            _panel(image, (x + index * (WIDTH + GAP), y), clip, rate_hz, scale)
    return image


def save_picture(image: Image.Image, path: Path) -> Path:
    """Write a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def describe_scale(rate_hz: int) -> str:
    """What the axes and colours are, for the header."""
    return f"{rate_hz:,} Hz; waveform, and log-mel spectrogram from {QUIETEST * DECIBELS:.0f} dB (dark) to 0 dB (bright)"


def _panel(image: Image.Image, corner: tuple[int, int], clip: Clip, rate_hz: int, scale: float) -> None:
    """Title and peak, waveform, spectrogram, seconds."""
    draw, (x, y) = ImageDraw.Draw(image), corner
    clean = _clean(clip.waveform)
    draw.text((x, y + 2), clip.title, WAVE[clip.real], _font(12))
    peak = f"peak {float(clean.abs().max()):.2f}" if bool(clip.waveform.isfinite().all()) else "not finite"
    draw.text((x + WIDTH, y + 3), peak, FAINT, _font(10), anchor="ra")
    _wave(draw, (x, y + TITLE), clean / scale, WAVE[clip.real])
    tile = Image.fromarray(colour(log_mel(clean[None, None], rate_hz).flip(1))[0].numpy())
    image.paste(tile.resize((WIDTH, MEL_HEIGHT), Image.Resampling.BILINEAR), (x, y + TITLE + WAVE_HEIGHT))
    foot = y + TITLE + WAVE_HEIGHT + MEL_HEIGHT + 2
    draw.text((x, foot), "0", FAINT, _font(10))
    draw.text((x + WIDTH, foot), f"{len(clean) / rate_hz:.2f} s", FAINT, _font(10), anchor="ra")


def _wave(draw: ImageDraw.ImageDraw, corner: tuple[int, int], waveform: Tensor, ink: tuple[int, int, int]) -> None:
    """A bar from the lowest to the highest sample of each column."""
    (x, y), middle = corner, (WAVE_HEIGHT - 4) / 2
    draw.line([(x, y + middle), (x + WIDTH - 1, y + middle)], FAINT)
    for column, part in enumerate(np.array_split(waveform.numpy(), WIDTH)):
        if len(part):
            draw.line([(x + column, y + middle * (1 - part.max())), (x + column, y + middle * (1 - part.min()))], ink)


def _frequencies(draw: ImageDraw.ImageDraw, top: int, rate_hz: int) -> None:
    draw.text((MARGIN - 5, top), f"{rate_hz / 2000:.3g} kHz", FAINT, _font(10), anchor="ra")
    draw.text((MARGIN - 5, top + MEL_HEIGHT), "0", FAINT, _font(10), anchor="rd")


def _clean(waveform: Tensor) -> Tensor:
    return torch.nan_to_num(waveform.detach().float().cpu(), nan=0.0, posinf=1.0, neginf=-1.0)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def colour(mels: Tensor) -> Tensor:
    """Log magnitudes (B, M, F) to colours (B, M, F, 3) uint8."""
    table = torch.tensor(COLOURS, dtype=torch.float32)
    place = ((mels - QUIETEST) / (LOUDEST - QUIETEST)).clamp(0, 1) * (len(table) - 1)
    below = place.floor().long().clamp(max=len(table) - 2)
    share = (place - below)[..., None]
    return (table[below] * (1 - share) + table[below + 1] * share).round().to(torch.uint8)

"""The fundamental frequency of voices, frame by frame, for measures that compare how two recordings are voiced.

Legend: B clips, T samples, F frames, N frames of all clips, W samples of a window, L lags, K candidates (0 is "unvoiced").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from advgen_audio.torchaudio_parts import resample

LOWEST_HZ, HIGHEST_HZ = 50.0, 550.0
HOP_SECONDS = 0.01
WINDOW_SECONDS = 3 / LOWEST_HZ
SILENT_LEVEL = 1e-3
"""Root mean square of a frame below which nothing is voiced: -60 dB of full scale."""
VOICED_STRENGTH = 0.45
MAX_RATE_HZ = 16_000
_LAGS_HZ = 32_000  # the correlation is interpolated to at least this rate before its peaks are refined
_CANDIDATES = 6
_OCTAVE_COST = 0.01  # for each octave lower, so that a period is preferred to two of them
_JUMP_COST = 0.35  # for each octave between neighbouring frames
_SWITCH_COST = 0.14  # between voiced and unvoiced
_NEVER = -1e9
_BLOCK = 2048
_TINY = 1e-20


@dataclass(frozen=True)
class Pitch:
    """What ``track_pitch`` found, every 10 ms, the first frame centred on the first sample.

    Args:
        f0_hz: (B, F) fundamental frequency in [50, 550], 0 where unvoiced.
        periodicity: (B, F) in [0, 1], height of the normalised autocorrelation's best peak; 0 where silent.
        inside: (B, F) bool, the frame's centre lies within its clip.
    """

    f0_hz: Tensor
    periodicity: Tensor
    inside: Tensor

    @property
    def voiced(self) -> Tensor:
        """(B, F) bool."""
        return self.f0_hz > 0


@torch.no_grad()
def track_pitch(waveforms: Tensor, rate_hz: int, lengths: Tensor | None = None) -> Pitch:
    """Pitch of (B, T) waveforms, from peaks of the autocorrelation and the cheapest path through them.

    Each clip is tracked as if it stood alone: what lies beyond its length is taken as silence. The gain changes nothing
    above -60 dB. Sound above 16 kHz is resampled to that.

    Args:
        waveforms: (B, T) float.
        rate_hz: their rate.
        lengths: (B,) samples of each clip that count; None: all.

    Source: Boersma 1993, https://www.fon.hum.uva.nl/paul/papers/Proceedings_1993.pdf; range and frames as in Morrison et
    al. 2022 (CARGAN), https://arxiv.org/abs/2110.10139
    """
    lengths = torch.full((len(waveforms),), waveforms.shape[1]) if lengths is None else lengths.cpu()
    within = torch.arange(waveforms.shape[1]) < lengths[:, None]
    clips = torch.where(within.to(waveforms.device), waveforms.float(), 0)
    if rate_hz > MAX_RATE_HZ:
        clips = resample(clips, rate_hz, MAX_RATE_HZ)
        lengths, rate_hz = (lengths * MAX_RATE_HZ + rate_hz - 1) // rate_hz, MAX_RATE_HZ
    hop = round(HOP_SECONDS * rate_hz)
    frames = _frames(clips, hop, round(WINDOW_SECONDS * rate_hz))
    inside = (torch.arange(frames.shape[1]) * hop < lengths[:, None]).to(clips.device)
    parts = [_candidates(part, rate_hz) for part in frames.flatten(0, 1).split(_BLOCK)]
    found = [torch.cat(column).unflatten(0, frames.shape[:2]) for column in zip(*parts, strict=True)]
    f0_hz, strength, periodicity = found
    path = _cheapest_path(f0_hz, strength, inside)
    chosen = f0_hz.gather(2, path[..., None])[..., 0]
    return Pitch(torch.where(inside, chosen, 0), torch.where(inside, periodicity, 0), inside)


def _frames(clips: Tensor, hop: int, window: int) -> Tensor:
    """(B, F, W) around every ``hop``-th sample, silence beyond the ends."""
    count, left = -(-clips.shape[1] // hop), window // 2
    right = (count - 1) * hop + window - left - clips.shape[1]
    return F.pad(clips, (left, right)).unfold(1, window, hop)


def _candidates(frames: Tensor, rate_hz: int) -> tuple[Tensor, Tensor, Tensor]:
    """(N, W) -> frequencies (N, K), 0 for unvoiced; strengths (N, K); periodicity (N,)."""
    correlation, level, lags_hz = _correlation(frames, rate_hz)
    first, last = math.floor(lags_hz / HIGHEST_HZ), math.ceil(lags_hz / LOWEST_HZ)
    left, middle, right = (correlation[:, first + step : last + 1 + step] for step in (-1, 0, 1))
    octaves = (LOWEST_HZ / lags_hz * torch.arange(first, last + 1, device=frames.device)).log2()
    peaks = (middle > left) & (middle >= right) & (middle > 0)
    rough = torch.where(peaks, middle - _OCTAVE_COST * octaves, _NEVER)
    strength, place = rough.topk(min(_CANDIDATES, rough.shape[1]), dim=1)
    low, top, high = (values.gather(1, place) for values in (left, middle, right))
    shift = 0.5 * (low - high) / (low - 2 * top + high).clamp_max(-_TINY)
    usable, silent = strength > _NEVER / 2, level < SILENT_LEVEL
    f0_hz = torch.where(usable, lags_hz / (first + place + shift.clamp(-0.5, 0.5)), 0).clamp(0, HIGHEST_HZ)
    unvoiced = VOICED_STRENGTH + 2.0 * silent.to(strength)
    heights = torch.where(usable, top - 0.25 * (low - high) * shift, 0).amax(1).clamp(0, 1)
    return (
        torch.cat([torch.zeros_like(f0_hz[:, :1]), f0_hz], 1),
        torch.cat([unvoiced[:, None], strength], 1),
        torch.where(silent, 0, heights),
    )


def _correlation(frames: Tensor, rate_hz: int) -> tuple[Tensor, Tensor, int]:
    """Autocorrelation (N, L) with its window's divided out, 1 at lag 0; root mean square (N,); lags per second."""
    window = torch.hann_window(frames.shape[1], device=frames.device)
    finer = max(1, math.ceil(_LAGS_HZ / rate_hz))
    longest = math.ceil(rate_hz / LOWEST_HZ) + 2
    size = 2 ** math.ceil(math.log2(frames.shape[1] + longest))

    def correlate(values: Tensor) -> Tensor:
        bins = torch.fft.rfft(values, size)
        # A longer inverse transform interpolates between the lags.
        return torch.fft.irfft(bins.real.square() + bins.imag.square(), size * finer)[..., : longest * finer] * finer

    own = correlate((frames - frames.mean(1, keepdim=True)) * window)
    expected = correlate(window)
    energy = own[:, :1].clamp_min(0)
    level = (energy[:, 0] / window.square().sum()).sqrt()
    return own / (energy + _TINY) / (expected / expected[0]), level, finer * rate_hz


def _cheapest_path(f0_hz: Tensor, strength: Tensor, inside: Tensor) -> Tensor:
    """Which candidate each frame takes, (B, F): strengths against jumps; frames outside the clip cost nothing."""
    gain = torch.where(inside[..., None], strength, 0)
    cost = torch.where(inside[:, 1:, None, None], _transition_costs(f0_hz), 0)
    total, pointers = gain[:, 0], list[Tensor]()
    for frame in range(1, gain.shape[1]):
        best, pointer = (total[:, :, None] - cost[:, frame - 1]).max(1)
        total = best + gain[:, frame]
        pointers.append(pointer)
    path = [total.argmax(1)]
    for pointer in reversed(pointers):
        path.append(pointer.gather(1, path[-1][:, None])[:, 0])
    return torch.stack(path[::-1], 1)


def _transition_costs(f0_hz: Tensor) -> Tensor:
    """(B, F - 1, K, K) from each candidate to each of the next frame's."""
    voiced, octaves = f0_hz > 0, f0_hz.clamp_min(1).log2()
    before, after = (slice(None, -1), slice(1, None))
    jump = (octaves[:, before, :, None] - octaves[:, after, None]).abs() * _JUMP_COST
    one, other = voiced[:, before, :, None], voiced[:, after, None]
    return torch.where(one & other, jump, torch.where(one ^ other, _SWITCH_COST, 0.0))

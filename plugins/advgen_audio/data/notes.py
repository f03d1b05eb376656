"""The embedded corpus: decaying harmonic notes whose four factors are known and can be read back.

Legend: N clips, T samples, H harmonics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RATE_HZ = 8000
LENGTH = 2048
NUM_REPEATS = 48
NUM_HARMONICS = 8
PITCHES_HZ = tuple(220.0 * 2 ** (k / 8) for k in range(8))
LOUDNESS_RMS = (0.05, 0.25)
DECAY_SECONDS = (0.04, 0.2)
BRIGHTNESS = (0.3, 0.8)  # amplitude of a harmonic over that of the one below it
ATTACK_SECONDS = 0.004
FACTOR_SIZES = {
    "pitch": len(PITCHES_HZ),
    "loudness": len(LOUDNESS_RMS),
    "decay": len(DECAY_SECONDS),
    "brightness": len(BRIGHTNESS),
}
TIMBRES = ("mellow", "bright")
CLASS_NAMES = tuple(f"{pitch:.0f}Hz-{timbre}" for pitch in PITCHES_HZ for timbre in TIMBRES)
DESCRIPTION = "notes 5: " + repr((RATE_HZ, LENGTH, NUM_REPEATS, PITCHES_HZ, LOUDNESS_RMS, DECAY_SECONDS, BRIGHTNESS))

_FRAME, _FRAME_HOP = 256, 64
_WINDOW, _PADDED = 2048, 16384
_MIN_HARMONIC_SHARE = 0.9
_MAX_ENVELOPE_ERROR_DB = 3.0
_MIN_RMS = 0.01


@dataclass(frozen=True)
class Reading:
    """What was read from N clips: each factor's level (N,) int64, whether the clip is one note, whether a factor lies
    in the middle third between its levels, where the corpus has nothing (both (N,) bool)."""

    factors: dict[str, Tensor]
    valid: Tensor
    between: Tensor


def make_notes() -> tuple[Tensor, dict[str, Tensor]]:
    """Waveforms (3072, 2048) in [-1, 1] and factor levels (3072,): every combination 48 times, the same at every call."""
    grid = torch.cartesian_prod(*(torch.arange(size) for size in FACTOR_SIZES.values())).repeat(NUM_REPEATS, 1)
    factors = dict(zip(FACTOR_SIZES, grid.unbind(1), strict=True))
    rng = torch.Generator().manual_seed(20)
    return torch.cat([_render(part, rng) for part in grid.split(512)]), factors


def class_of(factors: dict[str, Tensor]) -> Tensor:
    """Labels (N,) int64: what one would ask an instrument for, the pitch and the timbre."""
    return factors["pitch"] * len(TIMBRES) + factors["brightness"]


def _render(levels: Tensor, rng: torch.Generator) -> Tensor:
    """Clips (N, 2048) of factor levels (N, 4), with a little jitter in every factor and a random phase."""
    num = len(levels)

    def jitter(share: float) -> Tensor:
        return 1 + share * (2 * torch.rand(num, 1, generator=rng) - 1)

    pitch = torch.tensor(PITCHES_HZ)[levels[:, :1]] * jitter(0.006)
    rms = torch.tensor(LOUDNESS_RMS)[levels[:, 1:2]] * jitter(0.1)
    decay = torch.tensor(DECAY_SECONDS)[levels[:, 2:3]] * jitter(0.1)
    roll_off = torch.tensor(BRIGHTNESS)[levels[:, 3:4]] * jitter(0.03)
    time = torch.arange(LENGTH) / RATE_HZ
    phase = 2 * math.pi * (pitch * time + torch.rand(num, 1, generator=rng))
    tone, power = torch.zeros(num, LENGTH), torch.zeros(num, 1)
    for harmonic in range(1, NUM_HARMONICS + 1):
        amplitude = roll_off ** (harmonic - 1)
        tone, power = tone + amplitude * torch.sin(harmonic * phase), power + amplitude**2 / 2
    return tone * rms / power.sqrt() * torch.exp(-time / decay) * (1 - torch.exp(-time / ATTACK_SECONDS))


def read_notes(waveforms: Tensor) -> Reading:
    """Read the factors of clips (N, 2048) at 8 kHz from the signal alone."""
    decay_seconds, rms, error_db = _fit_envelope(waveforms)
    pitch_level, amplitudes, share = _harmonics(waveforms)
    order = torch.arange(1, NUM_HARMONICS + 1)
    centroid = (amplitudes * order).sum(1) / amplitudes.sum(1).clamp_min(1e-9)
    ideal = [sum(h * r ** (h - 1) for h in range(1, 9)) / sum(r ** (h - 1) for h in range(1, 9)) for r in BRIGHTNESS]
    read = {"loudness": (rms, LOUDNESS_RMS), "decay": (decay_seconds, DECAY_SECONDS), "brightness": (centroid, ideal)}
    factors = {"pitch": pitch_level} | {name: _nearest_level(*pair) for name, pair in read.items()}
    between = torch.stack([_is_between(*pair) for pair in read.values()]).any(0)
    valid = (share >= _MIN_HARMONIC_SHARE) & (error_db <= _MAX_ENVELOPE_ERROR_DB) & (rms >= _MIN_RMS) & (decay_seconds < 2)
    return Reading(factors, valid, between)


def _nearest_level(values: Tensor, levels: Sequence[float]) -> Tensor:
    """Index of the level that is nearest on a logarithmic scale."""
    distance = values.clamp_min(1e-9).log()[:, None] - torch.tensor(levels).log()
    return distance.abs().argmin(1)


def _is_between(values: Tensor, levels: Sequence[float]) -> Tensor:
    """(N,) bool: in the middle third, on a logarithmic scale, between the two levels."""
    low, high = math.log(levels[0]), math.log(levels[-1])
    return (values.clamp_min(1e-9).log() - (low + high) / 2).abs() < (high - low) / 6


def _fit_envelope(waveforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Time constant in seconds, RMS at the onset, and root-mean-square error in dB of an exponential decay."""
    frames = waveforms.unfold(1, _FRAME, _FRAME_HOP)
    level = 10 * torch.log10(frames.square().mean(-1) + 1e-10)
    time = (torch.arange(level.shape[1]) * _FRAME_HOP + _FRAME / 2) / RATE_HZ
    # The first frames hold the attack; what lies 25 dB below the loudest frame counts no more.
    weight = ((level > level.amax(1, keepdim=True) - 25) & (torch.arange(level.shape[1]) >= 1)).to(level.dtype)
    total = weight.sum(1, keepdim=True).clamp_min(1)
    mean_time, mean_level = (weight * time).sum(1, keepdim=True) / total, (weight * level).sum(1, keepdim=True) / total
    spread = (weight * (time - mean_time).square()).sum(1, keepdim=True).clamp_min(1e-9)
    slope = (weight * (time - mean_time) * (level - mean_level)).sum(1, keepdim=True) / spread
    onset = mean_level - slope * mean_time
    error = (weight * (level - onset - slope * time).square()).sum(1) / total[:, 0]
    decay = 20 / math.log(10) / (-slope[:, 0]).clamp_min(1e-3)
    return decay, 10 ** (onset[:, 0] / 20), error.sqrt()


def _harmonics(waveforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pitch level (N,), amplitudes of the harmonics (N, H), and their share (N,) of the energy."""
    windowed = waveforms[:, :_WINDOW] * torch.hann_window(_WINDOW)
    magnitude = torch.fft.rfft(windowed, n=_PADDED).abs()
    detune = 2 ** (torch.linspace(-0.5, 0.5, 9)[:-1] / 8)
    candidates = (torch.tensor(PITCHES_HZ)[:, None] * detune).flatten()
    bins = (candidates[:, None] * torch.arange(1, NUM_HARMONICS + 1) * _PADDED / RATE_HZ).round().long()
    # The largest value within 10 Hz: a decaying partial is a few hertz wide.
    reach = 10 * _PADDED // RATE_HZ
    smooth = torch.nn.functional.max_pool1d(magnitude[:, None], 2 * reach + 1, 1, reach)[:, 0]
    narrow = torch.nn.functional.max_pool1d(magnitude[:, None], 5, 1, 2)[:, 0]
    best = (narrow[:, bins] * 0.8 ** torch.arange(NUM_HARMONICS)).sum(-1).argmax(1)
    amplitudes = smooth.gather(1, bins[best])
    energy = magnitude.square()
    near = torch.nn.functional.avg_pool1d(energy[:, None], 3 * reach + 1, 1, 3 * reach // 2)[:, 0] * (3 * reach + 1)
    share = near.gather(1, bins[best]).sum(1) / energy.sum(1).clamp_min(1e-9)
    return best // len(detune), amplitudes, share


def total_variation(levels: Tensor, size: int) -> float:
    """Half the absolute difference between the levels' histogram and the corpus's, which is uniform; 0 is equal."""
    histogram = torch.bincount(levels, minlength=size).double() / max(1, len(levels))
    return float((histogram - 1 / size).abs().sum() / 2)

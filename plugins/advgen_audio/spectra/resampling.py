"""Band-limited resampling by a windowed sinc. Legend: T samples, P output phases, N taps."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

ZERO_CROSSINGS = 6
ROLLOFF = 0.99


def resample(waveform: Tensor, rate_hz: int, to_hz: int) -> Tensor:
    """Resample (..., T) from ``rate_hz`` to ``to_hz``.

    The filter is a sinc with six zero crossings on each side under a squared cosine. It cuts off at 0.99 of half the lower
    rate. Numbers equal those of ``torchaudio.functional.resample`` with its default arguments.

    Returns:
        (..., ceil(T * to_hz / rate_hz)) in the dtype of the waveform.

    Source: Smith, Digital Audio Resampling, https://ccrma.stanford.edu/~jos/resample/
    """
    if rate_hz == to_hz:
        return waveform
    divisor = math.gcd(rate_hz, to_hz)
    old, new = rate_hz // divisor, to_hz // divisor
    filters, margin = _filters(old, new, waveform.dtype)
    length = waveform.shape[-1]
    padded = F.pad(waveform.reshape(-1, 1, length), (margin, margin + old))
    phases = F.conv1d(padded, filters.to(waveform.device), stride=old)  # (B, P, frames): neighbors in time are phases
    # In float32 as torchaudio computes it, so that clips have the same length with either.
    resampled_length = int(torch.tensor(new * length / old, dtype=torch.float32).ceil())
    resampled = phases.transpose(1, 2).reshape(len(padded), -1)[:, :resampled_length]
    return resampled.reshape(*waveform.shape[:-1], -1)


@functools.lru_cache(maxsize=16)
def _filters(old: int, new: int, dtype: torch.dtype) -> tuple[Tensor, int]:
    """Compute one filter per output phase, (P, 1, N), and the number of earlier input samples that it uses.

    Times are computed in ``dtype``. With other rounding, float32 filters would differ from torchaudio's in the sixth digit.
    """
    cutoff = min(old, new) * ROLLOFF
    margin = math.ceil(ZERO_CROSSINGS * old / cutoff)
    taps = torch.arange(-margin, margin + old, dtype=dtype) / old
    delays = torch.arange(0, -new, -1, dtype=dtype) / new
    crossings = ((delays[:, None, None] + taps) * cutoff).clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = torch.cos(crossings * math.pi / ZERO_CROSSINGS / 2).square()
    return torch.sinc(crossings) * window * (cutoff / old), margin

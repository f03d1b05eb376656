"""Where a generated clip ends, for data whose clips are of many lengths and padded with digital silence to one.

Legend: B batch, T samples.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW_SECONDS = 0.016
SILENT_PEAK = 1e-4
MAX_CLIPS = 2000


def level_of_ends(clips: Sequence[Tensor], rate_hz: int) -> float:
    """How loud the clips of a data set are where they end: the median of the largest sample of the last 16 milliseconds, as a
    share of the clip's peak.

    Args:
        clips: (T_i,) each, without padding.
    """
    window = max(1, round(WINDOW_SECONDS * rate_hz))
    shares = [float(clip[-window:].abs().amax() / clip.abs().amax().clamp_min(SILENT_PEAK)) for clip in clips]
    return statistics.median(shares)


def ends_of_sound(waveforms: Tensor, rate_hz: int, level: float) -> Tensor:
    """How many samples of each clip are sound, (B,) int64, 1 to T.

    The end is the last place within 8 milliseconds of a sample that is louder than ``level`` times the clip's peak. A clip that
    is silent throughout is left whole.

    Args:
        waveforms: (B, 1, T).
        level: of ``level_of_ends``.
    """
    size = waveforms[:, 0].abs().float()
    half = max(1, round(WINDOW_SECONDS * rate_hz / 2))
    around = F.max_pool1d(size[:, None], 2 * half + 1, 1, half)[:, 0]
    peak = size.amax(1, keepdim=True)
    place = torch.arange(1, size.shape[1] + 1, device=size.device)
    last = torch.where(around > level * peak, place, 1).amax(1)
    return torch.where(peak[:, 0] > SILENT_PEAK, last, size.shape[1])


def without_tails(waveforms: Tensor, ends: Tensor) -> Tensor:
    """(B, 1, T) with zeros behind the ends (B,), as padding is in the data."""
    place = torch.arange(waveforms.shape[-1], device=waveforms.device)
    return torch.where(place < ends[:, None, None], waveforms, torch.zeros_like(waveforms))

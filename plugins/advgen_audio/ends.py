"""Where a generated clip ends, for data whose clips are of many lengths and padded with digital silence to one.

Legend: B batch, T samples.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# 40 dB below the clip's peak; recordings of speech are cut by hand at about that level.
QUIET = 0.01
WINDOW_SECONDS = 0.016
SILENT_PEAK = 1e-4


def ends_of_sound(waveforms: Tensor, rate_hz: int) -> Tensor:
    """How many samples of each clip are sound, (B,) int64, 1 to T.

    The end is the last place within 8 milliseconds of a sample that is louder than 1 % of the clip's peak. A clip that is
    silent throughout is left whole.

    Args:
        waveforms: (B, 1, T).
    """
    size = waveforms[:, 0].abs().float()
    half = max(1, round(WINDOW_SECONDS * rate_hz / 2))
    around = F.max_pool1d(size[:, None], 2 * half + 1, 1, half)[:, 0]
    peak = size.amax(1, keepdim=True)
    place = torch.arange(1, size.shape[1] + 1, device=size.device)
    last = torch.where(around > QUIET * peak, place, 1).amax(1)
    return torch.where(peak[:, 0] > SILENT_PEAK, last, size.shape[1])


def without_tails(waveforms: Tensor, ends: Tensor) -> Tensor:
    """(B, 1, T) with zeros behind the ends (B,), as padding is in the data."""
    place = torch.arange(waveforms.shape[-1], device=waveforms.device)
    return torch.where(place < ends[:, None, None], waveforms, torch.zeros_like(waveforms))

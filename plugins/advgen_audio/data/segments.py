"""Training data of vocoders: random segments of clips, and whole clips to hear and measure them on.

Legend: B batch, T samples, N clips.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from advgen import Batch
from advgen_audio.data.files import to_int16
from advgen_audio.data.loading import ClipSource

Gain = tuple[float, float]


class SegmentSource(ClipSource):
    """``ClipSource`` that also says in condition["length"] (B,) how many samples are no padding, at a random gain.

    Args:
        clips: the clips.
        length: samples per segment.
        gain_db: least and most.
    """

    def __init__(self, clips: ClipSource, length: int, gain_db: Gain = (0.0, 0.0)) -> None:
        super().__init__(clips.samples, clips.starts, clips.sizes, clips.labels, length)
        self.gain_db = gain_db

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Segments at ``indices``, each at a random place and gain."""
        place, loudness = torch.rand(len(indices), 2, generator=generator, dtype=torch.float64).unbind(1)
        values, (low, high) = self.cut(indices, place), self.gain_db
        values = values * (10 ** ((low + (high - low) * loudness) / 20)).float()[:, None, None]
        label = {} if self.labels is None else {"label": self.labels[indices]}
        return Batch(values, condition={**label, "length": self.sizes[indices].clamp(max=self.length)})


def pack_clips(waveforms: Tensor) -> list[str]:
    """(B, T) to text, 16 bits a sample, small enough for a run's facts."""
    return [base64.b64encode(to_int16(waveform).astype("<i2").tobytes()).decode("ascii") for waveform in waveforms]


def unpack_clips(texts: Sequence[str]) -> Tensor:
    """What ``pack_clips`` wrote: (B, T) float32.

    Raises:
        ValueError: if the texts are not such clips, all of the same length.
    """
    rows = [np.frombuffer(base64.b64decode(text), dtype="<i2").astype(np.float32) / 32767 for text in texts]
    return torch.from_numpy(np.stack(rows))

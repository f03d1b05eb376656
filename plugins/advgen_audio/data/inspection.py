"""What is in a folder or list of sound files, looked through block by block for ``gen data inspect``.

Legend: T samples, K channels.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from advgen import DataReport, DataRequest, Repeats, Show, Spread, Tally, counted, most_common
from advgen_audio.config import AudioConfig
from advgen_audio.data.decoding import SILENT_PEAK, silence, unreadable
from advgen_audio.data.loading import fitting_length, split_clips
from advgen_audio.data.scanning import Rejects, SoundFile, look_at, rows

BLOCK_FRAMES = 2**16
# The largest 16-bit sample is 1 - 2**-15.
FULL_SCALE = 1 - 1.5 * 2**-15
# A single sample at full scale is a peak, this many in a row were cut off.
CLIPPED_RUN = 3


class Clip:
    """What is known of one clip once its blocks have passed."""

    def __init__(self, rate_hz: int) -> None:
        self.hash = hashlib.blake2b(str(rate_hz).encode(), digest_size=16)
        self.num_frames, self.num_clipped, self.peak, self.is_finite = 0, 0, 0.0, True

    def add(self, block: NDArray[np.float32]) -> None:
        """A block (T, K)."""
        self.hash.update(block.tobytes())
        self.num_frames += len(block)
        self.is_finite = self.is_finite and bool(np.isfinite(block).all())
        self.peak = max(self.peak, float(np.abs(block.mean(1)).max(initial=0.0)))
        self.num_clipped += sum(clipped_samples(channel) for channel in block.T)


def clipped_samples(values: NDArray[np.float32]) -> int:
    """Samples (T,) that stand at full scale, on one side, three or more in a row."""
    total = 0
    for side in (values, -values):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], side >= FULL_SCALE, [0]]).astype(np.int8)))
        runs = edges[1::2] - edges[::2]
        total += int(runs[runs >= CLIPPED_RUN].sum())
    return total


class _Findings:
    """Figures over all clips."""

    def __init__(self) -> None:
        self.rates, self.channels, self.formats, self.labels = Counter[int](), Counter[int](), Counter[str](), Counter[str]()
        self.seconds, self.repeats = Spread(), Repeats()
        self.clipped, self.silent, self.not_finite = Tally(), Tally(), Tally()
        self.num_frames, self.num_clipped = 0, 0
        self.kept: list[SoundFile] = []

    def take(self, file: SoundFile) -> str:
        """Look through one clip; why it cannot be used, or nothing."""
        try:
            info, clip = soundfile.info(file.path), Clip(file.rate_hz)
            for block in _blocks(file):
                clip.add(block)
        except (RuntimeError, OSError) as error:
            return unreadable(file.path, error)
        self.formats[f"{info.format} {info.subtype}"] += 1
        self.rates[file.rate_hz] += 1
        self.channels[info.channels] += 1
        problem = self._problem(file, clip, info.channels)
        if not problem:
            self.num_frames += clip.num_frames * info.channels
            self.num_clipped += clip.num_clipped
            if clip.num_clipped:
                self.clipped.add(file.name)
            self.seconds.add(clip.num_frames / file.rate_hz)
            self.repeats.add(file.name, clip.hash.digest())
            self.kept.append(file)
        return problem

    def _problem(self, file: SoundFile, clip: Clip, num_channels: int) -> str:
        if not clip.num_frames:
            return "holds no samples"
        if not clip.is_finite:
            self.not_finite.add(file.name)
            return "holds samples that are not finite"
        if clip.peak < SILENT_PEAK:
            self.silent.add(file.name)
            return silence(num_channels)
        return ""


def _blocks(file: SoundFile) -> Iterator[NDArray[np.float32]]:
    with soundfile.SoundFile(file.path) as stream:
        stream.seek(file.start)
        yield from stream.blocks(BLOCK_FRAMES, frames=file.num_frames, dtype="float32", always_2d=True)


def inspect_sounds(config: AudioConfig, request: DataRequest, show: Show) -> DataReport:
    """A report on every clip that training would read, and on those that it could not.

    Raises:
        DataError: where there is no sound file at all.
    """
    place, report, found = Path(request.path or "."), DataReport("clips"), _Findings()
    rejects = Rejects(place, request.max_bad)
    listed = list(rows(place, config, rejects))
    for number, row in enumerate(listed, start=1):
        file = look_at(row, config, rejects)
        if file is not None and (problem := found.take(file)):
            rejects.add(row.name, problem)
        show(number, len(listed))
    for reason in rejects.reasons:
        report.refuse(*reason.split(": ", 1))
    report.count, report.duplicates = len(found.kept), found.repeats.summary()
    report.details = _details(found)
    if found.kept:
        _add_training(report, found, config, request)
    return report


def _details(found: _Findings) -> dict[str, object]:
    share = found.num_clipped / max(1, found.num_frames)
    return {
        "rates_hz": most_common(found.rates),
        "channels": most_common(found.channels),
        "formats": most_common(found.formats),
        "seconds": found.seconds.summary(),
        "clipped": {"samples_share": round(share, 8), "clips": found.clipped.summary()},
        "silent": found.silent.summary(),
        "not_finite": found.not_finite.summary(),
    }


def _add_training(report: DataReport, found: _Findings, config: AudioConfig, request: DataRequest) -> None:
    """Classes, splits, and what training would do with the lengths and rates."""
    kept, remarks = found.kept, report.remarks
    names, named = [file.name for file in kept], [file.split for file in kept]
    report.divide([file.label for file in kept], names, lambda: split_clips(names, config, request, named))
    rate_hz = config.sample_rate_hz or found.rates.most_common(1)[0][0]
    others = sum(number for rate, number in found.rates.items() if rate != rate_hz)
    if others:
        remarks.append(
            f"{counted(others, 'clip')} would be resampled to {rate_hz} Hz; options.sample_rate_hz sets another rate"
        )
    sizes = [round(file.num_frames * rate_hz / file.rate_hz) for file in kept]
    length = config.length or fitting_length(sizes)
    shorter, longer = sum(size < length for size in sizes), sum(size > length for size in sizes)
    report.details["training"] = {"rate_hz": rate_hz, "length": length, "shorter_clips": shorter, "longer_clips": longer}

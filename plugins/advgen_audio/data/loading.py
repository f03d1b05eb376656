"""Sound files decoded once, in memory or mapped from the cache, and random access to their clips."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from advgen import (
    Batch,
    DataError,
    DataRequest,
    cache_folder,
    class_notes,
    content_hash,
    free_bytes,
    is_manifest,
    most_unpacked,
    replace_file,
    size_text,
    split_indices,
)
from advgen_audio.config import AudioConfig
from advgen_audio.data.decoding import SAMPLE_BYTES, SILENT_PEAK, read_channels, resampled, silence
from advgen_audio.data.scanning import Rejects, SoundFile, scan

MAX_AUTO_LENGTH = 16384
MAX_MEMORY_BYTES = 512 * 2**20
MAX_HASHED_BYTES = 512 * 2**20
PEAK = 0.95
ANY = 2**63 - 1


class ClipSource:
    """Clips of any length in one flat array, cut or zero-padded at the end to ``length``: values (B, 1, T) float32.

    Args:
        samples: (S,) float32 in memory, or int16 memory-mapped.
        starts, sizes: (N,) where each clip lies in ``samples``.
        labels: (N,) int64, or None.
    """

    def __init__(self, samples: Any, starts: Tensor, sizes: Tensor, labels: Tensor | None, length: int) -> None:
        self.samples, self.starts, self.sizes, self.labels, self.length = samples, starts, sizes, labels, length

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Clips at ``indices``; a longer clip is cut at a random place, one draw per index."""
        places = torch.rand(len(indices), generator=generator, dtype=torch.float64)
        return Batch(self.cut(indices, places), condition={} if self.labels is None else {"label": self.labels[indices]})

    def cut(self, indices: Tensor, places: Tensor) -> Tensor:
        """(B, 1, T): clips at ``indices``, a longer one from ``places`` (B,) in [0, 1) of its room on."""
        values = torch.zeros(len(indices), 1, self.length)
        for row, (index, place) in enumerate(zip(indices.tolist(), places.tolist(), strict=True)):
            size = int(self.sizes[index])
            start = int(self.starts[index]) + int(place * (max(0, size - self.length) + 1))
            clip = self._read(start, min(size, self.length))
            values[row, 0, : len(clip)] = clip
        return values

    def shorter_clips(self, most: int) -> list[Tensor]:
        """The first ``most`` clips (T,) that are shorter than ``length``, without padding."""
        shorter = (self.sizes < self.length).nonzero()[:most, 0].tolist()
        return [self._read(int(self.starts[index]), int(self.sizes[index])) for index in shorter]

    def _read(self, start: int, size: int) -> Tensor:
        clip = torch.from_numpy(np.array(self.samples[start : start + size]))
        return clip if clip.dtype == torch.float32 else clip.float() / 32767

    def part(self, indices: Tensor) -> ClipSource:
        """The clips at ``indices`` as a source of their own, on the same samples."""
        labels = None if self.labels is None else self.labels[indices]
        return ClipSource(self.samples, self.starts[indices], self.sizes[indices], labels, self.length)


def common_rate(files: Sequence[SoundFile]) -> int:
    """The most common sample rate; the lower one of a tie."""
    return min(Counter(file.rate_hz for file in files).items(), key=lambda item: (-item[1], item[0]))[0]


def fitting_length(sizes: Sequence[int]) -> int:
    """The power of two, 1024 to 16384 samples, that holds 99 % of the clips."""
    needed = float(np.quantile(np.asarray(sizes), 0.99))
    length = 1024
    while length < min(needed, MAX_AUTO_LENGTH):
        length *= 2
    return length


def load_clip(file: SoundFile, rate_hz: int, normalise: bool) -> Tensor:
    """One clip as (T,) float32: mixed to one channel, resampled, peak-normalised.

    Raises:
        ValueError: with the reason why the clip cannot be used.
    """
    channels, own_rate_hz = read_channels(file.path, file.start, file.num_frames)
    clip = channels.mean(1)
    if float(clip.abs().max()) < SILENT_PEAK:
        raise ValueError(silence(channels.shape[1]))
    clip = resampled(clip, own_rate_hz, rate_hz, file.path.stat().st_size)
    return clip * (PEAK / clip.abs().max().clamp_min(SILENT_PEAK)) if normalise else clip.clamp(-1, 1)


def fingerprint(folder: Path, files: Sequence[SoundFile]) -> str:
    """sha256 over names and content; over names, sizes and times where the folder exceeds 512 MB."""
    if is_manifest(folder):
        parts = [f"{f.name}\t{f.label}\t{f.split}".encode() for f in files]
        whole = {f.path: replace(f, name=f.path.name) for f in files}  # many clips may be of one file
        return content_hash([*parts, _content(list(whole.values())).encode()])
    return _content(files)


def _content(files: Sequence[SoundFile]) -> str:
    stats = [file.path.stat() for file in files]
    if sum(stat.st_size for stat in stats) <= MAX_HASHED_BYTES:
        return content_hash(part for file in files for part in (file.name.encode(), file.path.read_bytes()))
    return content_hash(f"{f.name} {s.st_size} {s.st_mtime_ns}".encode() for f, s in zip(files, stats, strict=True))


@dataclass(frozen=True)
class LoadedFolder:
    """A folder or list after reading: its clips, where they came from, the splits that a list names, and the classes."""

    source: ClipSource
    names: tuple[str, ...]
    named_splits: tuple[str | None, ...]
    classes: tuple[str, ...]
    rate_hz: int
    fingerprint: str
    bad: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass
class Kept:
    """The files that could be decoded, with the number of samples of each."""

    files: list[SoundFile] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


def load_folder(config: AudioConfig, request: DataRequest) -> LoadedFolder:
    """Read a folder or list into memory, or through a memory-mapped cache where it would take more than 512 MB.

    Raises:
        DataError: where the folder or too many of its files cannot be used.
    """
    folder = Path(request.path or ".")
    rejects = Rejects(folder, request.max_bad)
    files = scan(folder, config, rejects)
    rate_hz = config.sample_rate_hz or common_rate(files)
    mark = fingerprint(folder, files)
    total = sum(file.num_frames * rate_hz / file.rate_hz for file in files)
    _refuse_bombs(folder, files, int(total) * SAMPLE_BYTES)
    kept = Kept()
    clips = _usable_clips(files, rate_hz, config, rejects, kept)
    samples: Any
    if total * 4 <= MAX_MEMORY_BYTES:
        samples = np.concatenate([np.zeros(0, np.float32), *(clip.numpy() for clip in clips)])
    else:
        name = content_hash(str(part).encode() for part in (mark, rate_hz, config.peak_normalise))
        samples = _through_cache(cache_folder() / f"audio-{name[:24]}.pcm", clips, files, rejects, kept)
    if not kept.files:
        raise DataError(f"none of the sound files in {folder} can be used: {'; '.join(rejects.reasons[:5])}")
    labels, classes = _number_labels(kept.files, config)
    length = config.length or fitting_length(kept.sizes)
    sizes = torch.tensor(kept.sizes)
    source = ClipSource(samples, sizes.cumsum(0) - sizes, sizes, labels, length)
    names, named = tuple(file.name for file in kept.files), tuple(file.split for file in kept.files)
    notes = class_notes([file.label for file in kept.files], names, "clips") if config.conditional else ()
    return LoadedFolder(source, names, named, classes, rate_hz, mark, tuple(rejects.reasons), notes)


def _refuse_bombs(folder: Path, files: Sequence[SoundFile], decoded: int) -> None:
    """Refuse small files that decode to a huge size, before memory or disk is used for it."""
    encoded = sum(path.stat().st_size for path in {file.path for file in files})
    most, room = most_unpacked(encoded, largest=ANY), free_bytes(cache_folder())
    if decoded > most:
        raise DataError(
            f"{folder} decodes to {size_text(decoded)}, too much for files of {size_text(encoded)} (limit {size_text(most)}); "
            "remove parts of it, or set ADVGEN_MAX_UNPACKED_GIB to a larger number of GiB if you trust it"
        )
    if decoded > max(MAX_MEMORY_BYTES, room):
        raise DataError(
            f"decoded sound takes {size_text(decoded)}, but {cache_folder()} has room for {size_text(room)}; make room there, "
            "or set XDG_CACHE_HOME to another folder"
        )


def _usable_clips(
    files: Sequence[SoundFile], rate_hz: int, config: AudioConfig, rejects: Rejects, kept: Kept
) -> Iterator[Tensor]:
    """Yield the clips that decode, noting each one's file and size."""
    for file in files:
        try:
            clip = load_clip(file, rate_hz, config.peak_normalise)
        except ValueError as error:
            rejects.add(file.name, str(error))
            continue
        kept.files.append(file)
        kept.sizes.append(len(clip))
        yield clip


def _through_cache(target: Path, clips: Iterator[Tensor], files: Sequence[SoundFile], rejects: Rejects, kept: Kept) -> Any:
    """Map the clips as 16-bit samples from one file, which the first run writes and later ones find.

    Raises:
        DataError: where the cache cannot be written.
    """
    index_file = target.with_suffix(".json")
    try:
        with FileLock(target.with_suffix(".lock")):  # other processes wait for the result instead of decoding too
            _fill_cache(target, index_file, clips, files, rejects, kept)
    except OSError as error:
        raise DataError(
            f"decoded sound cannot be kept in {target.parent}: {error.strerror or error}; make room there, or set "
            "XDG_CACHE_HOME to another place"
        ) from error
    return np.memmap(target, dtype=np.int16, mode="r") if target.stat().st_size else np.zeros(0, np.int16)


def _fill_cache(
    target: Path, index_file: Path, clips: Iterator[Tensor], files: Sequence[SoundFile], rejects: Rejects, kept: Kept
) -> None:
    """Find the clips in the cache, or write them there. The index is written last: without it, samples count as missing."""
    if target.exists() and index_file.exists():
        index = json.loads(index_file.read_text(encoding="utf-8"))
        names = set(index["kept"])
        kept.files += [file for file in files if file.name in names]
        kept.sizes += index["sizes"]
        for reason in index["bad"]:
            rejects.add(*reason.split(": ", 1))
        return
    before, partial = len(rejects.reasons), target.with_suffix(".partial")
    with partial.open("wb") as stream:
        for clip in clips:
            stream.write((clip.clamp(-1, 1) * 32767).round().to(torch.int16).numpy().tobytes())
    replace_file(partial, target)
    index = {"kept": [file.name for file in kept.files], "sizes": kept.sizes, "bad": rejects.reasons[before:]}
    partial.write_text(json.dumps(index), encoding="utf-8", newline="\n")
    replace_file(partial, index_file)


def _number_labels(files: Sequence[SoundFile], config: AudioConfig) -> tuple[Tensor | None, tuple[str, ...]]:
    """Labels (N,) and class names; none where files lack one, all share one, or the run is unconditional."""
    names = [file.label for file in files]
    classes = tuple(sorted({name for name in names if name is not None}))
    if not config.conditional or None in names or len(classes) < 2:
        return None, ()
    return torch.tensor([classes.index(str(name)) for name in names]), classes


def split_clips(
    names: Sequence[str], config: AudioConfig, request: DataRequest, named: Sequence[str | None] | None = None
) -> Mapping[str, Tensor]:
    """Indices of each split: as ``named`` and by hash of the name, or test by ``test_pattern`` and the rest by hash.

    Raises:
        DataError: where a split would be empty.
    """
    if config.test_pattern is None or any(named or ()):
        return split_indices(names, request, named)
    held = [re.search(config.test_pattern, name.rsplit("/", 1)[-1]) is not None for name in names]
    rest = torch.tensor([i for i, own in enumerate(held) if not own], dtype=torch.int64)
    if len(rest) in (0, len(names)):
        raise DataError(
            f"options.test_pattern {config.test_pattern!r} matches {len(names) - len(rest)} of {len(names)} files; "
            "expected some for test and some for training"
        )
    parts = split_indices([names[i] for i in rest.tolist()], replace(request, test_share=0.1))
    return {
        "train": rest[torch.cat([parts["train"], parts["test"]]).sort().values],
        "validation": rest[parts["validation"]],
        "test": torch.tensor([i for i, own in enumerate(held) if own], dtype=torch.int64),
    }

"""Which sound files a data set has: a folder's, or those that a list names; headers, labels, and what cannot be used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from advgen import DataError, ManifestRow, is_manifest, read_manifest, sorted_paths
from advgen_audio.config import AudioConfig
from advgen_audio.data.decoding import header_of

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
# A list's times are often rounded to hundredths.
SLACK_SECONDS = 0.02


@dataclass(frozen=True)
class SoundFile:
    """One clip: a file or a part of one, its header, and what its name or list says.

    Args:
        name: tells it from the other clips of the data set.
        num_frames: samples of the clip, at its own rate.
        start: the clip's first sample in the file.
        split: where a list names it.
    """

    path: Path
    name: str
    rate_hz: int
    num_frames: int
    label: str | None
    start: int = 0
    split: str | None = None


class Rejects:
    """Files left out, with reasons; refuses the data set when there are too many."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.reasons: list[str] = []

    def add(self, name: str, reason: str) -> None:
        self.reasons.append(f"{name}: {reason}")
        if len(self.reasons) > self.limit:
            named = "; ".join(self.reasons[:5])
            raise DataError(
                f"{self.folder} has more than {self.limit} files that cannot be used: {named}; repair or remove them, "
                "or raise data.max_bad"
            )


def find_files(folder: Path) -> list[Path]:
    """Sound files under a folder, sorted by relative name.

    Raises:
        DataError: where the folder is missing, is a file, or has no sound file.
    """
    if not folder.exists():
        raise DataError(f"{folder} does not exist; expected a folder of {', '.join(SUFFIXES)} files")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file; expected a folder of {', '.join(SUFFIXES)} files, or a .csv, .tsv or .jsonl list")
    files = sorted_paths(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        kinds = Counter(path.suffix or "no suffix" for path in folder.rglob("*") if path.is_file())
        found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(3)) or "no files"
        raise DataError(f"{folder} holds {found}; expected {', '.join(SUFFIXES)} files, in it or in its sub-folders")
    return files


def scan(folder: Path, config: AudioConfig, rejects: Rejects) -> list[SoundFile]:
    """Headers and labels of all files of a folder or list that can be opened.

    Raises:
        DataError: where there are none.
    """
    found = [file for row in rows(folder, config, rejects) if (file := look_at(row, config, rejects)) is not None]
    if not found:
        raise DataError(f"none of the sound files in {folder} can be used: {'; '.join(rejects.reasons[:5])}")
    return found


def rows(place: Path, config: AudioConfig, rejects: Rejects) -> Iterator[ManifestRow]:
    """The clips of a folder or list; those of a folder are labelled by their first sub-folder, unless by a pattern."""
    if is_manifest(place):
        yield from read_manifest(place, rejects.add)
        return
    for path in find_files(place):
        name = path.relative_to(place).as_posix()
        yield ManifestRow(name, path, name.split("/")[0] if "/" in name and config.label_pattern is None else None)


def look_at(row: ManifestRow, config: AudioConfig, rejects: Rejects) -> SoundFile | None:
    """A clip's header, or None where it cannot be used, which ``rejects`` is told."""
    try:
        info = header_of(row.path)
    except ValueError as error:
        rejects.add(row.name, str(error))
        return None
    label, problem = row.label, _problem(row, info.frames, info.samplerate)
    if label is None and config.label_pattern is not None:
        match = re.search(config.label_pattern, row.path.name)
        label = match["label"] if match else None
        problem = problem if match else f"its name does not match options.label_pattern {config.label_pattern!r}"
    if problem:
        rejects.add(row.name, problem)
        return None
    start = round(row.start_seconds * info.samplerate)
    room = info.frames - start
    num = room if row.duration_seconds is None else min(room, round(row.duration_seconds * info.samplerate))
    return SoundFile(row.path, row.name, info.samplerate, num, label, start, row.split)


def _problem(row: ManifestRow, num_frames: int, rate_hz: int) -> str:
    """Why the part that a row names is not in the file; empty where it is."""
    seconds = num_frames / rate_hz
    end = row.start_seconds + (row.duration_seconds or 0.0)
    if num_frames == 0:
        return "holds no samples"
    if row.start_seconds >= seconds or end > seconds + SLACK_SECONDS:
        asked = f"{row.start_seconds:g} to {end:g} s" if row.duration_seconds else f"{row.start_seconds:g} s on"
        return f"the list asks for {asked}, the file ends at {seconds:.2f} s"
    return "" if row.duration_seconds is None or row.duration_seconds * rate_hz >= 1 else "is shorter than a sample"

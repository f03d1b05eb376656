"""Tokens of a split, line after line without padding: in memory, or in files that are mapped.

Legend: N lines, T tokens of all lines together, B batch, L tokens a sample.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from advgen import Batch

from .tokenizer import EOS, PAD, UNKNOWN

MOST_TOKENS = 65_536
MOST_SEARCHED = 2_000_000
HASH_BASE = np.uint64(0x9E3779B97F4A7C15)
TOKEN, END, LABEL = np.dtype(np.uint16), np.dtype(np.int64), np.dtype(np.int32)
PARTS: dict[str, np.dtype[Any]] = {"tokens": TOKEN, "ends": END, "labels": LABEL, "prompts": LABEL}
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Encoded:
    """A corpus as tokens: arrays by split (none where they went to files), and what goes with them.

    Args:
        bad: what was left out.
        notes: what a run on it should know.
    """

    arrays: dict[str, Arrays]
    facts: dict[str, Any]
    fingerprint: str
    bad: tuple[str, ...]
    notes: tuple[str, ...] = ()


class RowWriter:
    """Takes blocks of lines.

    Args:
        folder: where the files ``<split>.<part>`` go; None keeps them in memory.
        split: name of the split.
    """

    def __init__(self, folder: Path | None, split: str) -> None:
        self._streams: dict[str, BinaryIO] = {
            part: io.BytesIO() if folder is None else (folder / f"{split}.{part}").open("wb") for part in PARTS
        }
        self._end, self.num_rows, self.longest, self.longest_prompt = 0, 0, 0, 0
        self.num_unknown, self.num_words = 0, 0

    def add(self, rows: Sequence[Sequence[int]], labels: Sequence[int], prompts: Sequence[int] = ()) -> None:
        """Write lines of at least one token each, their labels, and how many of their tokens are a prompt (none without)."""
        sizes = np.array([len(row) for row in rows], END)
        ends = self._end + sizes.cumsum()
        tokens = np.array([token for row in rows for token in row], TOKEN)
        arrays = {"tokens": tokens, "ends": ends, "labels": np.array(labels, LABEL), "prompts": np.array(prompts, LABEL)}
        for part, array in arrays.items():
            self._streams[part].write(array.tobytes())
        self.longest_prompt = max(self.longest_prompt, *prompts, 0)
        if len(rows):
            self._end, self.longest = int(ends[-1]), max(self.longest, int(sizes.max()))
        self.num_rows += len(rows)
        self.num_unknown += int((tokens == UNKNOWN).sum())
        self.num_words += int((tokens != EOS).sum())

    def close(self) -> Arrays:
        """End writing; what was written, where it was kept in memory."""
        kept = {part: stream.getbuffer() for part, stream in self._streams.items() if isinstance(stream, io.BytesIO)}
        for stream in self._streams.values():
            if not isinstance(stream, io.BytesIO):
                stream.close()
        return {part: np.frombuffer(buffer, PARTS[part]) for part, buffer in kept.items()}


def map_arrays(folder: Path, split: str) -> Arrays:
    """The arrays of a split, mapped from the files that a ``RowWriter`` wrote."""
    files = {part: folder / f"{split}.{part}" for part in PARTS}
    return {part: _map(file, PARTS[part]) for part, file in files.items()}


def _map(file: Path, kind: np.dtype[Any]) -> npt.NDArray[Any]:
    return np.memmap(file, kind, "r") if file.stat().st_size else np.zeros(0, kind)


def _ends_of(lines: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    return np.array([len(line) for line in lines], np.int64).cumsum()


@dataclass(frozen=True)
class Runs:
    """All runs of ``size`` tokens within lines, each as a hash.

    Args:
        tokens: (T,) of all lines together.
        starts: (R,) where each run begins.
        stops: (R,) where the line of each run ends.
        lines: (R,) number of that line.
        hashes: (R,) uint64.
    """

    tokens: npt.NDArray[Any]
    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    lines: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint64]
    size: int

    @classmethod
    def of(cls, tokens: npt.NDArray[Any], ends: npt.NDArray[np.int64]) -> Runs:
        """The runs of one token; ``ends`` (N,) is where each line ends."""
        lines = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
        return cls(tokens, np.arange(len(tokens)), ends[lines], lines, tokens.astype(np.uint64) + np.uint64(1), 1)

    def kept(self, which: npt.NDArray[np.bool_]) -> Runs:
        """Some of them."""
        return Runs(self.tokens, self.starts[which], self.stops[which], self.lines[which], self.hashes[which], self.size)

    def longer(self) -> Runs:
        """Those that go on for one token more within their line."""
        inside = self.kept(self.starts + self.size < self.stops)
        following = inside.tokens[inside.starts + self.size].astype(np.uint64) + np.uint64(1)
        return Runs(
            inside.tokens, inside.starts, inside.stops, inside.lines, inside.hashes * HASH_BASE + following, self.size + 1
        )


class TextSource:
    """One split: samples (B, L) int64 by index, <pad> behind, their mask True from behind the prompt through <eos>.

    Args:
        arrays: ``tokens`` (T,), ``ends`` (N,), ``labels`` (N,), or (0,) without labels, and ``prompts`` (N,), how many of a
            sample's tokens are its prompt, or (0,) without prompts.
        length: L.
        prompt_length: the most tokens of a prompt.
    """

    def __init__(self, arrays: Arrays, length: int, prompt_length: int = 0) -> None:
        self._tokens, self._ends, self._labels, self._length = arrays["tokens"], arrays["ends"], arrays["labels"], length
        self._prompts, self._prompt_length = arrays["prompts"], prompt_length

    def __len__(self) -> int:
        return len(self._ends)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Lines at ``indices`` (B,); nothing random."""
        rows = indices.numpy()
        starts, ends = self._starts(rows), self._ends[rows]
        places = starts[:, None] + np.arange(self._length)
        mask = places < ends[:, None]
        values = np.where(mask, self._tokens[np.minimum(places, ends[:, None] - 1)], PAD).astype(np.int64)
        condition = {"label": torch.from_numpy(self._labels[rows].astype(np.int64))} if len(self._labels) else {}
        if len(self._prompts):
            given = np.arange(self._length) < self._given(rows)[:, None]
            condition["prompt"] = torch.from_numpy(np.where(given, values, PAD)[:, : self._prompt_length])
            mask &= ~given
        return Batch(torch.from_numpy(values), torch.from_numpy(mask), condition)

    def contains(self, lines: Sequence[Sequence[int]]) -> list[bool]:
        """Which of some lines of tokens are in this split, without their prompts."""
        wanted = {np.array(line, TOKEN).tobytes() for line in lines}
        sizes, found = {len(line) for line in wanted}, set()
        for rows in np.array_split(np.arange(len(self)), max(1, len(self) // 65_536)):
            if not len(rows):
                break
            starts, ends = self._starts(rows), self._ends[rows]
            first, last = int(starts[0]), int(ends[-1])
            data = self._tokens[first:last].tobytes()
            edges = ((each - first) * TOKEN.itemsize for each in (starts + self._given(rows), ends))
            here = zip(*(each.tolist() for each in edges), strict=True)
            found |= {data[a:b] for a, b in here if b - a in sizes} & wanted
        return [np.array(line, TOKEN).tobytes() in found for line in lines]

    def longest_copies(self, lines: Sequence[Sequence[int]]) -> list[int]:
        """How many tokens in a row of each line stand so in some line of this split, behind its prompt, at most.

        By rolling hashes of 64 bits, a run one token longer at a time. Of a large split, the first lines that hold two million
        tokens are searched.
        """
        rows = min(len(self._ends), int(np.searchsorted(self._ends, MOST_SEARCHED, "right")) or 1)
        ends = self._ends[:rows].astype(np.int64)
        here = Runs.of(self._tokens[: int(ends[-1])], ends) if rows else None
        if here is not None and len(self._prompts):
            behind = self._starts(np.arange(rows)) + self._given(np.arange(rows))
            here = here.kept(here.starts >= behind[here.lines])
        own = Runs.of(np.concatenate([np.asarray(line, TOKEN) for line in lines] or [np.zeros(0, TOKEN)]), _ends_of(lines))
        longest = np.zeros(len(lines), np.int64)
        while here is not None and len(here.hashes) and len(own.hashes):
            # Both sides keep what the other has: a longer run can only be where its beginning is.
            known, which = np.unique(own.hashes, return_inverse=True)
            places = np.searchsorted(known, here.hashes).clip(max=len(known) - 1)
            here, shared = here.kept(known[places] == here.hashes), np.zeros(len(known), np.bool_)
            shared[np.searchsorted(known, here.hashes)] = True
            own = own.kept(shared[which])
            longest[own.lines] = own.size
            here, own = here.longer(), own.longer()
        found: list[int] = longest.tolist()
        return found

    def prompts(self, most: int) -> list[list[int]]:
        """Prompts of the first lines, each once, at most so many."""
        found: dict[tuple[int, ...], None] = {}
        for row in range(min(len(self._prompts), 4 * most)):
            start = int(self._starts(np.array([row]))[0])
            found[tuple(self._tokens[start : start + int(self._prompts[row])].tolist())] = None
        return [list(prompt) for prompt in found][:most]

    def label_counts(self, num_classes: int) -> list[int]:
        """How often each label occurs."""
        counts: list[int] = np.bincount(self._labels, minlength=num_classes).tolist()
        return counts

    def _given(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """How many tokens of each row are its prompt."""
        return self._prompts[rows] if len(self._prompts) else np.zeros(len(rows), LABEL)

    def _starts(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        before = self._ends[np.maximum(rows - 1, 0)]
        return np.where(rows > 0, before, 0)

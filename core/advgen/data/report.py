"""What ``gen data inspect`` tells of a data set, and the counters that modalities fill it with. Torch-free.

Memory is bounded: what grows with the data is capped, and the report says where it was.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

from advgen.data.labels import class_notes
from advgen.errors import DataError

MOST_NAMED = 1000
MOST_COMPARED = 1_000_000
EXAMPLES = 5

Show = Callable[[int, int | None], None]
"""Is told how many samples were looked at, and of how many where that is known."""


@dataclass
class DataReport:
    """What was found.

    Args:
        unit: what a sample is called, in the plural: ``clips``.
        count: samples that training could use.
        num_bad: samples that it could not.
        bad: the first of these by name, each with its reason.
        classes: samples by class.
        splits: samples by split, as training would divide them.
        duplicates: ``Repeats.summary``.
        details: the modality's own findings, by name.
        remarks: sentences on what stands in the way of training, with the way out.
    """

    unit: str
    count: int = 0
    num_bad: int = 0
    bad: list[str] = field(default_factory=list)
    classes: Mapping[str, int] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)
    duplicates: Mapping[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def refuse(self, name: str, reason: str) -> None:
        """Count a bad sample, and name it while there are few."""
        self.num_bad += 1
        if len(self.bad) < MOST_NAMED:
            self.bad.append(f"{name}: {reason}")

    def divide(
        self,
        labels: Sequence[str | None],
        names: Sequence[str],
        split: Callable[[], Mapping[str, Sized]],
        way: str = "label them all",
    ) -> None:
        """Take each usable sample's class and the splits of training; what would stand in the way becomes a remark.

        Args:
            names: what each sample is called.
            way: what to do about samples without a class.
        """
        counts = Counter(labels)
        self.classes = {str(name): counts[name] for name in sorted(counts, key=str) if name is not None}
        self.remarks += class_notes(labels, names, self.unit, way)
        try:
            self.splits = {name: len(indices) for name, indices in split().items()}
        except DataError as error:
            self.remarks.append(str(error))

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dict(vars(self))


class Spread:
    """Least, median, mean, greatest and sum of many numbers; the median to three digits."""

    def __init__(self) -> None:
        self.counts: Counter[float] = Counter()
        self.least, self.greatest, self.total, self.num = math.inf, -math.inf, 0.0, 0

    def add(self, value: float) -> None:
        """Take a number."""
        self.least, self.greatest = min(self.least, value), max(self.greatest, value)
        self.total += value
        self.num += 1
        self.counts[float(f"{value:.3g}")] += 1  # so that there are few different ones

    def summary(self, total: bool = True) -> dict[str, float]:
        """By name; empty where there was no number. ``total``: with the sum, where it means something."""
        if not self.num:
            return {}
        parts = {"min": self.least, "median": self._median(), "mean": self.total / self.num, "max": self.greatest}
        parts |= {"total": self.total} if total else {}
        rounded = {name: round(value, 4) for name, value in parts.items()}
        return {name: int(value) if float(value).is_integer() else value for name, value in rounded.items()}

    def _median(self) -> float:
        passed = 0
        for value in sorted(self.counts):
            passed += self.counts[value]
            if 2 * passed >= self.num:
                return value
        return math.nan


class Repeats:
    """Which samples have a content that another had before.

    Args:
        named: whether to remember what the first one was called; where the content names itself, its hash is enough.
    """

    def __init__(self, named: bool = True) -> None:
        self.named = named
        self.first: dict[bytes, str] = {}
        self.num_extra, self.num_compared = 0, 0
        self.examples: list[list[str]] = []

    def add(self, name: str, digest: bytes, shown: str = "") -> None:
        """Take a sample by a hash of its content, of which ``shown`` is told beside its name."""
        if digest in self.first:
            self.num_compared += 1
            self.num_extra += 1
            if len(self.examples) < MOST_NAMED:
                own = f"{name} ({shown})" if shown else name
                self.examples.append([own, self.first[digest] if self.named else own])
        elif len(self.first) < MOST_COMPARED:
            self.num_compared += 1
            self.first[digest] = name if self.named else ""

    def summary(self) -> dict[str, Any]:
        """How many samples repeat an earlier one, which ones, and of how many."""
        return {"count": self.num_extra, "pairs": self.examples, "compared": self.num_compared}


@dataclass
class Tally:
    """How many samples have a property, and the first of them by name."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Take a sample that has it."""
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(name)

    def summary(self) -> dict[str, Any]:
        """JSON-able; without names where there are none."""
        return {"count": self.count, "examples": self.examples} if self.count else {"count": 0}


def most_common(counts: Counter[Any], most: int = 20) -> dict[str, int]:
    """A counter as names to numbers, the largest first; the rest is summed under ``others``."""
    ranked = counts.most_common()
    shown = {str(name): number for name, number in ranked[:most]}
    rest = sum(number for _, number in ranked[most:])
    return shown | ({"others": rest} if rest else {})

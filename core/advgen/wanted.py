"""Which samples a call of ``gen sample`` asks for, and under which names they are written."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from advgen.contracts import Batch
from advgen.errors import ConfigError, DataError
from advgen.files import file_name
from advgen.latent.space import Space, load_places

if TYPE_CHECKING:
    from advgen.sampling import LoadedRun

NUM_SAMPLES = 16
NUM_ROWS = 8
CLASSES = "classes"
LATENT = "latent"
"""The stem of the file that gen project writes: its folder says more."""


@dataclass(frozen=True)
class Wanted:
    """What ``sample_run`` was given."""

    num_samples: int | None = None
    seed: int | None = None
    seeds: tuple[int, ...] | None = None
    label: int | str | None = None
    truncation: float | None = None
    grid: str | None = None
    latent: Path | str | None = None

    def check(self) -> None:
        """Refuse what contradicts itself, before anything is loaded.

        Raises:
            ConfigError: naming the options.
        """
        if self.num_samples is not None and self.num_samples < 1:
            raise ConfigError(f"-n {self.num_samples}: expected at least one sample")
        if self.seeds is not None and (self.num_samples is not None or self.seed is not None):
            raise ConfigError("--seeds names one sample each, -n and --seed count samples of one seed; give one or the other")
        if self.seeds is not None and not self.seeds:
            raise ConfigError("--seeds names no seed; expected such as 0-63,70")
        if self.latent is not None and any(each is not None for each in (self.seeds, self.num_samples, self.seed, self.label)):
            raise ConfigError("--from-latent has its samples in its file; leave out -n, --seed, --seeds and --class")
        if self.latent is not None and self.truncation is not None:
            raise ConfigError("--from-latent renders latents as they are; leave out --truncation")
        self._check_grid()

    def _check_grid(self) -> None:
        if self.grid is None:
            return
        if self.grid == CLASSES:
            if self.num_samples is not None or self.seed is not None or self.label is not None or self.latent is not None:
                raise ConfigError(
                    "--grid classes shows every class of every seed: name the seeds with --seeds; "
                    "leave out -n, --seed, --class and --from-latent"
                )
        elif not re.fullmatch(r"[1-9]\d{0,3}x[1-9]\d{0,3}", self.grid):
            raise ConfigError(f"--grid {self.grid}: expected classes, or rows x columns such as 4x8")

    @property
    def sides(self) -> tuple[int, int] | None:
        """Rows and columns of the overview, where they are given."""
        if self.grid is None or self.grid == CLASSES:
            return None
        rows, _, columns = self.grid.partition("x")
        return int(rows), int(columns)

    @property
    def count(self) -> int:
        """How many samples of one seed."""
        places = self.sides[0] * self.sides[1] if self.sides else NUM_SAMPLES
        return self.num_samples or places

    @property
    def folder(self) -> str:
        """The sub-folder of a run's samples that they go to by default."""
        if self.latent is not None:
            path = Path(self.latent).absolute()
            return file_name(f"latent-{path.stem}" if path.stem != LATENT else f"latent-of-{path.parent.name}")
        return f"seed-{self.seed or 0}" if self.seeds is None and self.grid != CLASSES else "seeds"


@dataclass(frozen=True)
class Drawn:
    """Samples and their names.

    Args:
        batch: in the prepared scale, on the CPU.
        names: sub-folder and number of each.
        columns: of the overview; None: as the modality likes it.
        rows: of the overview; None: all samples are in it.
    """

    batch: Batch
    names: Sequence[tuple[str, int]]
    columns: int | None = None
    rows: int | None = None

    @property
    def shown(self) -> Batch:
        """What the overview has room for."""
        return self.batch if self.rows is None or self.columns is None else self.batch.slice(0, self.rows * self.columns)

    def blocks(self, size: int, one_file: bool) -> Iterator[tuple[int, int, str, int]]:
        """Runs of at most ``size`` samples with consecutive numbers: start, stop, sub-folder, first number.

        Where the samples of a folder go to one file they are numbered as they come.
        """
        numbered = _in_order(self.names) if one_file else list(self.names)
        start = 0
        for stop in range(1, len(numbered) + 1):
            first = numbered[start]
            if stop == len(numbered) or stop - start == size or numbered[stop] != (first[0], first[1] + stop - start):
                yield start, stop, *first
                start = stop


def draw_wanted(run: LoadedRun, wanted: Wanted) -> Drawn:
    """The samples that are asked for.

    Raises:
        GenError: where the run cannot make them.
    """
    rows, columns = wanted.sides or (None, None)
    space = run.space(wanted.truncation)
    if wanted.latent is not None:
        batch = _from_file(run, space, Path(wanted.latent))
        return Drawn(batch, _numbered(range(len(batch))), columns, rows)
    if wanted.grid == CLASSES:
        return _by_class(run, space, sorted(set(wanted.seeds or range(NUM_ROWS))))
    if wanted.seeds is not None:
        seeds = sorted(set(wanted.seeds))
        return Drawn(draw_seeds(space, seeds, run.label(wanted.label)), _numbered(seeds), columns, rows)
    batch = run.draw(wanted.count, wanted.seed or 0, wanted.label, wanted.truncation)
    return Drawn(batch, _numbered(range(wanted.count)), columns, rows)


def draw_seeds(space: Space, seeds: Sequence[int], label: int | None = None) -> Batch:
    """One sample for each seed, each drawn alone: it is the same whatever the other seeds."""
    return Batch.cat([space.render(space.place(seed, label)) for seed in seeds])


def _in_order(names: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """The same sub-folders, each one's samples numbered from 0 on."""
    counts: Counter[str] = Counter()
    found = []
    for part, _ in names:
        found.append((part, counts[part]))
        counts[part] += 1
    return found


def _numbered(numbers: Sequence[int]) -> list[tuple[str, int]]:
    return [("", number) for number in numbers]


def _by_class(run: LoadedRun, space: Space, seeds: Sequence[int]) -> Drawn:
    """Every class of every seed, row by row; a sub-folder for each class."""
    classes = [str(name) for name in run.modality.facts.get("classes") or ()]
    if len(classes) < 2:
        raise ConfigError("--grid classes: this run has no classes; expected rows x columns such as 4x8")
    wanted = [(seed, index) for seed in seeds for index in range(len(classes))]
    batch = Batch.cat([space.render(space.place(seed, index)) for seed, index in wanted])
    folders = [file_name(name) for name in classes]
    if len({unicodedata.normalize("NFC", name).casefold() for name in folders}) < len(folders):  # macOS and Windows ignore case
        folders = [f"{index}-{name}" for index, name in enumerate(folders)]
    return Drawn(batch, [(folders[index], seed) for seed, index in wanted], len(classes), len(seeds))


def _from_file(run: LoadedRun, space: Space, path: Path) -> Batch:
    if not path.is_file():
        raise DataError(f"--from-latent: {path} does not exist; expected a .safetensors file of gen project")
    places, facts = load_places(path, space)
    if facts.get("weights") not in (None, run.weights):
        where = f"{facts.get('run', 'another run')} step {facts.get('step', '?')}"
        logging.getLogger("advgen").warning("warning: %s was found in other weights (%s); the sample will differ", path, where)
    return Batch.cat([space.render(place) for place in places])

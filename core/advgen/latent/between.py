"""What lies between samples of a run: walks from seed to seed or class to class, and tables of mixed styles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from advgen import interrupts
from advgen.contracts import Batch
from advgen.errors import ConfigError
from advgen.latent.space import Place, Space, evenly, require_movable, walk
from advgen.randomness import seed_networks, untouched
from advgen.sampling import LoadedRun, SampleResult, load_run
from advgen.written import written_anew

ALL = "all"


@dataclass(frozen=True)
class Walk:
    """What ``interpolate_run`` is to show.

    Args:
        seeds: stations of one walk; with ``classes`` each seed walks through the classes on its own.
        label: the class of every station; None: each seed's own.
        classes: names or indices, or ``("all",)``; None: from seed to seed.
        frames: steps from one station to the next.
        columns: how many steps of a row the picture shows.
        loop: whether the walk comes back to where it began.
        kind: format of the animation; None: the modality's default.
    """

    seeds: Sequence[int]
    label: int | str | None = None
    classes: Sequence[str] | None = None
    frames: int = 24
    columns: int = 9
    loop: bool = False
    kind: str | None = None
    truncation: float | None = None


def interpolate_run(
    run: Path | str,
    wanted: Walk,
    out: Path | str | None = None,
    device: str = "auto",
    plugin: str | None = None,
    step: int | None = None,
) -> SampleResult:
    """Write a table of walks between samples, and where the modality makes animations, a film of them.

    Raises:
        GenError: where nothing lies between two samples of the run, or what is asked for contradicts itself.
    """
    loaded = load_run(run, device, plugin, step)
    space = loaded.space(wanted.truncation)
    require_movable(space, "interpolate")
    kind = _kind(loaded, wanted.kind)
    rows = _rows(loaded, space, wanted)
    folder = Path(out) if out is not None else loaded.folder / "samples" / "interpolation"
    with written_anew(folder) as draft:
        films = [[space.render(place) for place in row] for row in rows]
        shown, columns = _table(films, wanted)
        with interrupts.held():
            overview = loaded.modality.table(shown, columns, draft.folder / "overview")
            files = loaded.modality.animate(_scenes(films, wanted), draft.folder / "interpolation", kind) if kind else []
        overview, files = draft.place(overview), draft.place(files)
    return SampleResult(loaded.folder, loaded.step, files, overview, draft.removed, sum(map(len, films)))


def _kind(loaded: LoadedRun, asked: str | None) -> str | None:
    """The format of the animation; None where the modality makes none.

    Raises:
        ConfigError: listing the known ones, where it does not make the one that is asked for.
    """
    known = loaded.modality.animations
    if asked is not None and asked not in known:
        listed = "; ".join(f"{name} ({about})" for name, about in known.items())
        way = f"known: {listed}" if known else "it makes no animations; leave --format out"
        raise ConfigError(f"--format {asked}: plugin {loaded.record.name} does not make it; {way}")
    return asked or next(iter(known), None)


def _rows(loaded: LoadedRun, space: Space, wanted: Walk) -> list[list[Place]]:
    """One walk through the seeds, or one through the classes for each seed."""
    if wanted.frames < 1 or wanted.columns < 2:
        raise ConfigError(f"--frames {wanted.frames} --columns {wanted.columns}: expected at least 1 frame and 2 columns")
    if wanted.classes is None:
        stations = [[space.place(seed, loaded.label(wanted.label)) for seed in wanted.seeds]]
    else:
        labels = _labels(loaded, wanted)
        stations = [[space.place(seed, label) for label in labels] for seed in wanted.seeds]
    if not stations or len(stations[0]) < 2:
        raise ConfigError("a walk needs two stations at least; name two seeds or more with --seeds, or two --classes")
    return [walk(space, [*row, row[0]] if wanted.loop else row, wanted.frames) for row in stations]


def _labels(loaded: LoadedRun, wanted: Walk) -> list[int]:
    if wanted.label is not None:
        raise ConfigError("--class keeps one class and --classes goes through several; give one of the two")
    names = [str(name) for name in loaded.modality.facts.get("classes") or ()]
    if not names:
        raise ConfigError("--classes: this run has no classes to go through; name two seeds or more with --seeds instead")
    asked = names if list(wanted.classes or ()) == [ALL] else list(wanted.classes or ())
    found = [loaded.label(name) for name in asked]
    return [label for label in found if label is not None]


def _table(films: list[list[Batch]], wanted: Walk) -> tuple[Batch, int]:
    """The samples of the picture row by row, and its columns: a row for each leg, or for each seed's walk."""
    if wanted.classes is None:
        film, length = films[0], wanted.frames
        rows = [film[start : start + length + 1] for start in range(0, len(film) - 1, length)]
    else:
        rows = films
    shown = evenly(len(rows[0]), wanted.columns)
    return Batch.cat([row[index] for row in rows for index in shown]), len(shown)


def _scenes(films: list[list[Batch]], wanted: Walk) -> list[Batch]:
    """What is seen at once: one step of every walk. A walk that comes back does not show its first sample twice."""
    scenes = [Batch.cat(list(step)) for step in zip(*films, strict=True)]
    return scenes[:-1] if wanted.loop else scenes


def mix_run(
    run: Path | str,
    coarse: Sequence[int],
    fine: Sequence[int],
    label: int | str | None = None,
    start: int | None = None,
    truncation: float | None = None,
    out: Path | str | None = None,
    device: str = "auto",
    plugin: str | None = None,
    step: int | None = None,
) -> SampleResult:
    """Write a table of mixed styles: rows bring the coarse ones, columns the fine ones, the sources in front.

    Args:
        coarse, fine: seeds.
        label: the class of all; None: each seed's own.
        start: the first layer with the fine seed's style; None: a third of the way.

    Raises:
        GenError: where the run's networks have no styles, or no such layer.
    """
    loaded = load_run(run, device, plugin, step)
    space, chosen = loaded.space(truncation), loaded.label(label)
    first = _first_layer(loaded, start)
    sides = [[space.place(seed, chosen) for seed in seeds] for seeds in (coarse, fine)]
    if not sides[0] or not sides[1]:
        raise ConfigError("gen mix needs a seed on each side at least; such as --coarse 0-3 --fine 10-15")
    cells = [space.render(place) for place in sides[1]]
    for row in sides[0]:
        cells += [space.render(row), *(_mixed(space, row, column, first) for column in sides[1])]
    folder = Path(out) if out is not None else loaded.folder / "samples" / "mixing"
    with written_anew(folder) as draft, interrupts.held():
        overview = draft.place(loaded.modality.table(Batch.cat(cells), len(sides[1]) + 1, draft.folder / "overview", blank=1))
    return SampleResult(loaded.folder, loaded.step, [], overview, draft.removed, len(cells))


def _first_layer(loaded: LoadedRun, start: int | None) -> int:
    """Where the fine styles begin.

    Raises:
        ConfigError: where the networks have no styles, or not so many.
    """
    network = loaded.generator
    if not network.num_styles:
        latent = loaded.space().place(0)
        network.mix(latent.latent, latent.latent, latent.condition, 0)  # which says what is missing
    if start is None:
        return max(1, network.num_styles // 3)
    if not 0 < start < network.num_styles:
        raise ConfigError(
            f"--from-layer {start}: the generator has {network.num_styles} layers with styles, of which both sides "
            f"need one at least; expected 1 to {network.num_styles - 1}"
        )
    return start


@torch.no_grad()
def _mixed(space: Space, coarse: Place, fine: Place, start: int) -> Batch:
    """One mixed sample on the CPU; it counts as the class of its coarse styles."""
    with untouched(space.device):
        seed_networks(0, "latent")
        sample = space.generator.mix(coarse.latent, fine.latent, coarse.condition, start)
        return space.modality.postprocess(sample, coarse.condition).to("cpu")

"""``gen project``: a file of the user's, the nearest sample that a run can make, and the latent of it, as files."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from advgen import interrupts
from advgen.contracts import Batch, Discriminator, Modality
from advgen.errors import DataError
from advgen.files import file_name, replace_file, user_path
from advgen.latent.search import Found, Measure, Search, search
from advgen.latent.space import Space, plain, require_movable, save_places
from advgen.runs import RunFolder, checkpoint
from advgen.sampling import LoadedRun, load_run, refuse_imported, suits
from advgen.tensor_files import TensorFile
from advgen.transfer import float_type
from advgen.weights import UnfitError, load_network, require_room
from advgen.written import written_anew

SAY_EVERY = 50
DISCRIMINATOR = "discriminator"


@dataclass
class Projection:
    """What a projection wrote.

    Args:
        distances: by name, those of ``found``, ``nearest`` (where the search began) and ``typical`` samples.
        latent: for ``gen sample RUN --from-latent``.
        remarks: what had to be changed of the file.
    """

    run: Path
    step: int
    distances: dict[str, dict[str, float]]
    latent: Path
    files: list[Path]
    seconds: float
    remarks: list[str] = field(default_factory=list)
    label: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        paths = {"run": str(self.run), "latent": str(self.latent), "files": [str(path) for path in self.files]}
        facts = {"step": self.step, "distances": self.distances, "seconds": self.seconds, "class": self.label}
        return paths | facts | {"remarks": self.remarks}


def project_run(
    run: Path | str,
    file: Path | str,
    wanted: Search | None = None,
    label: int | str | None = None,
    out: Path | str | None = None,
    device: str = "auto",
    plugin: str | None = None,
    step: int | None = None,
    say: Any = None,
) -> Projection:
    """Find the latent that reproduces a file; write target, projection, the way there, the latent and a record.

    Args:
        wanted: how it is sought; its label is set from ``label``, a class's name or index.
        out: the folder; None: one in the run, named by the file.
        say: called with a line now and then.

    Raises:
        GenError: where the file cannot be read, or the run's samples have no latent that could be moved.
    """
    wanted = wanted or Search()
    wanted.check()
    source = user_path(file)
    if not source.exists():
        raise DataError(f"{source} does not exist; expected a file to project")
    loaded = load_run(run, device, plugin, step)
    space = loaded.space()
    require_movable(space, "project")
    wanted = Search(**{**vars(wanted), "label": loaded.label(label)})
    target, remarks = loaded.modality.read_sample(source)
    began = time.monotonic()
    prepared = _prepared(space, target)
    found = search(space, Measure(_discriminator(loaded), prepared), wanted, _reporter(wanted, say))
    seconds = round(time.monotonic() - began, 1)
    folder = Path(out) if out is not None else loaded.folder / "samples" / file_name(f"projection-{source.stem}")
    facts = {"file": str(source), "seconds": seconds, "search": vars(wanted), "remarks": remarks}
    latent, files = _write(loaded, space, prepared, found, folder, facts)
    distances = {name: dict(row) for name, row in found.distances.items()}
    return Projection(loaded.folder, loaded.step, distances, latent, files, seconds, remarks, _class_of(space, found))


def _reporter(wanted: Search, say: Any) -> Any:
    if say is None:
        return None

    def report(step: int, cost: float) -> None:
        if step % SAY_EVERY == 0:
            say(f"step {step} of {wanted.steps}: distance {cost:.4f}")

    return report


def _prepared(space: Space, target: Batch) -> Batch:
    """The target in the networks' scale, on their device and in their precision."""
    batch = space.modality.prepare(target.to(space.device))
    dtype = float_type(space.generator)
    return Batch(batch.values.to(dtype), batch.mask, batch.condition)


def _discriminator(loaded: LoadedRun) -> Discriminator:
    """The run's discriminator as it is after the same step, for looking alone.

    Raises:
        CheckpointError: where the checkpoint has none.
    """
    folder = RunFolder.existing(loaded.folder)
    refuse_imported(folder)

    def choose(files: Mapping[str, TensorFile]) -> dict[str, None]:
        if DISCRIMINATOR not in files:
            raise UnfitError(f"the checkpoint of {folder.path} holds no discriminator, whose features tell what is near")
        file = files[DISCRIMINATOR]
        with suits(folder.path, loaded.record):
            require_room(loaded.modality.discriminator, file.sizes, f"{file.path}: the {DISCRIMINATOR}")
        return {DISCRIMINATOR: None}

    parts, _ = checkpoint.load(folder.checkpoints, loaded.step, choose)
    dtype = float_type(loaded.generator)
    with torch.random.fork_rng(devices=[]):
        network = loaded.modality.discriminator().to(loaded.device, dtype)
    load_network(network, parts[DISCRIMINATOR], DISCRIMINATOR)
    return network.eval().requires_grad_(False)


def _write(
    loaded: LoadedRun, space: Space, target: Batch, found: Found, folder: Path, facts: dict[str, Any]
) -> tuple[Path, list[Path]]:
    """The latent's path and those of all files; what an earlier projection left in the folder goes first."""
    way = [space.render(place) for place in found.path]
    shown = Batch(target.values.cpu(), target.mask, way[-1].condition)
    with written_anew(folder) as draft, interrupts.held():
        latent, record = draft.folder / "latent.safetensors", draft.folder / "projection.json"
        files = [
            *_write_as("target", loaded.modality, shown, draft.folder),
            *_write_as("projection", loaded.modality, way[-1], draft.folder),
            *loaded.modality.table(Batch.cat([*way, shown]), len(way) + 1, draft.folder / "progress"),
        ]
        origin = {"run": str(loaded.folder), "step": str(loaded.step), "weights": loaded.weights, "space": space.kind}
        save_places(latent, found.place, origin)
        named = {"class": _class_of(space, found), "distances": {name: dict(row) for name, row in found.distances.items()}}
        text = json.dumps({**origin, "step": loaded.step, **named, **facts}, indent=2) + "\n"
        record.write_text(text, encoding="utf-8", newline="\n")
        placed = draft.place([*files, latent, record])
    return folder / latent.name, placed


def _write_as(name: str, modality: Modality[Any], batch: Batch, folder: Path) -> list[Path]:
    """One sample's files in the modality's format, under another name."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".draft-") as draft:
        places = {path: folder / f"{name}{path.suffix}" for path in modality.write(batch, Path(draft))}
        for path, place in places.items():
            replace_file(path, place)
    return list(places.values())


def _class_of(space: Space, found: Found) -> str | None:
    """The class whose latent was found, where there are classes."""
    label = plain(found.place.condition).get("label")
    classes = space.modality.facts.get("classes") or ()
    return None if label is None or not classes else str(classes[int(label[0])])

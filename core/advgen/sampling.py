"""Runs opened to draw from, and their samples as files."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from advgen import interrupts
from advgen.config.load import options_of
from advgen.config.model import RunConfig
from advgen.config.sampling import plugins_with, sampling_model, sampling_options
from advgen.contracts import Batch, Corpus, Generator, Modality
from advgen.drawing import answer, draw_samples, refresh_statistics
from advgen.errors import CheckpointError, ConfigError, DataError, GenError, nearest
from advgen.latent.space import Space
from advgen.metrics.likelihood import likelihood_metrics
from advgen.reading import told
from advgen.registry import PluginRecord
from advgen.runs import RunFolder, checkpoint, warning_of_divergence
from advgen.runs.folder import is_export, read_export
from advgen.runs.plugin import find_plugin_at
from advgen.setup import modality_class, read_corpus
from advgen.tensor_files import TensorFile
from advgen.wanted import Drawn, Wanted, draw_wanted
from advgen.weights import UnfitError, load_network, reason, require_room, value_fault
from advgen.world import pick_device
from advgen.written import Draft, writing, written_anew

WRITE_BLOCK = 16
WATERMARK = "watermark"
VERIFY_FLAGS = {WATERMARK: "--key", "watermark_share": "--share"}


@dataclass
class LoadedRun:
    """A run's averaged generator, ready to draw from."""

    folder: Path
    config: RunConfig
    record: PluginRecord
    modality: Modality[Any]
    generator: Generator
    device: torch.device
    step: int
    fingerprint: str
    weights: str = ""
    """sha256 of the generator's file."""

    def draw(self, num: int, seed: int = 0, label: int | str | None = None, truncation: float | None = None) -> Batch:
        """``num`` samples in the prepared scale, on the CPU; ``label`` is a class's name or index.

        Raises:
            ConfigError: where the run has no such class, or nothing to truncate.
        """
        chosen = self.label(label)
        return draw_samples(
            self.generator, self.modality, num, seed=seed, device=self.device, label=chosen, truncation=truncation
        )

    @property
    def truncation(self) -> float:
        """How far samples lie from the mean latent; 1: as trained."""
        return self.generator.truncation

    def space(self, truncation: float | None = None) -> Space:
        """Where its samples lie, for single seeds and what is between them."""
        return Space(self.generator, self.modality, self.device, truncation)

    def label(self, label: int | str | None) -> int | None:
        """A class's index from its name or index.

        Raises:
            ConfigError: listing the classes, where there is no such.
        """
        return _label(self.modality, label)

    def answer(self, asked: Batch, seed: int = 0) -> Batch:
        """A sample for each condition of a prepared batch, in its order, on the CPU."""
        return answer(self.generator, self.modality, asked, seed=seed, device=self.device)

    def of_generator(self, held_out: Batch, generated: Batch) -> dict[str, float]:
        """Likelihoods of held-out data and of its own samples, where it has one, and what else is known of the generator."""
        found = likelihood_metrics(self.modality, self.generator, held_out, generated)
        return found | dict(self.modality.generator_metrics(self.generator))

    @functools.cached_property
    def _corpus(self) -> Corpus:
        refuse_imported(RunFolder(self.folder))
        return read_corpus(self.record, self.config)[1]

    def corpus(self) -> Corpus:
        """The data that the run was trained on, read again."""
        return self._corpus


def refuse_imported(folder: RunFolder) -> None:
    """Refuse what needs a run's data or training state where the run is an imported checkpoint.

    Raises:
        CheckpointError: with the command that makes a run with data of it.
    """
    if is_export(folder.path):
        RunFolder.existing(folder.path)  # which says what it is
    if folder.read_json("run.json").get("imported"):
        raise CheckpointError(
            f"{folder.path} was imported and has neither data nor training state; "
            f"train on with: gen train --config {folder.path / 'config.toml'} --data DATA --from {folder.path}"
        )


def load_run(path: Path | str, device: str = "auto", plugin: str | None = None, step: int | None = None) -> LoadedRun:
    """Load a run's generator from its newest whole checkpoint, or from ``step``; or that of an exported folder."""
    if is_export(path):
        from advgen.export.reading import load_export

        return load_export(Path(path), device, plugin, step)
    folder, chosen = RunFolder.existing(path), pick_device(device)
    config, record, modality = open_modality(path, plugin)
    about = folder.read_json("run.json")
    if not isinstance(fingerprint := about.get("fingerprint"), str):
        raise CheckpointError(f"{folder.path / 'run.json'} lacks fingerprint; the run folder is damaged")

    def choose(files: Mapping[str, TensorFile]) -> dict[str, None]:
        name = "average" if "average" in files else "generator"
        if name not in files:
            raise UnfitError(f"the checkpoint of {folder.path} holds no generator")
        with suits(folder.path, record):
            require_room(modality.generator, files[name].sizes, f"{files[name].path}: the generator")
        return {name: None}

    parts, manifest, problems = checkpoint.load_chosen(folder.checkpoints, step, choose)
    log = logging.getLogger("advgen")
    for problem in problems:
        log.warning("warning: %s; step %d is used instead", problem, manifest["step"])
    if step is None and (warning := warning_of_divergence(folder.path)):
        log.warning(warning)
    ((part, tensors),) = parts.items()
    with torch.random.fork_rng(devices=[]):
        dtype = torch.float64 if config.train.precision == "float64" else torch.float32
        generator = modality.generator().to(chosen, dtype)
        load_network(generator, tensors, "generator", refreshed=True)
        refresh_statistics(generator, modality, chosen)
    known = manifest["step"], fingerprint, manifest["files"][part]["sha256"]
    return LoadedRun(folder.path, config, record, modality, generator, chosen, *known)


def open_modality(path: Path | str, plugin: str | None = None) -> tuple[RunConfig, PluginRecord, Modality[Any]]:
    """What is known of the samples of a run, or of an exported folder, without its weights.

    Raises:
        CheckpointError: where it is neither, or is damaged.
        PluginError: where its plugin is not installed, or its plugin file is not named.
    """
    record = find_plugin_at(path, plugin)
    if is_export(path):
        from advgen.export.reading import config_of

        about = read_export(path)
        config, facts = config_of(about, Path(path)), about["facts"]
    else:
        folder = RunFolder.existing(path)
        config, facts = folder.config(), folder.read_json("facts.json")
    kind = modality_class(record)
    with suits(Path(path), record):
        _check_classes(facts)
        return config, record, kind(options_of(record, config), facts)


def _check_classes(facts: Mapping[str, Any]) -> None:
    """Refuse class names that are not texts, and sample counts that classes cannot be drawn by.

    Raises:
        ValueError: naming the value and the expectation.
    """
    classes, counts = facts.get("classes") or [], facts.get("class_counts")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"classes is {told(classes)}, expected a list of texts")
    if not classes or counts is None:
        return
    if not isinstance(counts, list) or len(counts) != len(classes) or not all(_is_count(count) for count in counts):
        raise ValueError(f"class_counts is {told(counts)}, expected {len(classes)} counts of samples")
    if not any(counts):
        raise ValueError("class_counts has only zeros, expected a class with samples")


def _is_count(count: Any) -> bool:
    return isinstance(count, int | float) and not isinstance(count, bool) and 0 <= count < 2**53


@contextlib.contextmanager
def suits(path: Path, record: PluginRecord) -> Iterator[None]:
    """Turn errors that a plugin raises on stored facts and options into a refusal that names the run.

    Raises:
        CheckpointError: if the code in the block fails.
    """
    try:
        yield
    except GenError as error:
        absent = error.__cause__ is not None and not isinstance(error.__cause__, ValueError)  # such as a package
        if absent or not isinstance(error, ConfigError | DataError):
            raise
        raise UnfitError(f"{path}: {error}") from error
    except Exception as error:  # a plugin that meets unlikely facts may raise any
        raise UnfitError(
            f"{path}: plugin {record.name} cannot use its facts and configuration ({reason(error)}); the folder is damaged, or "
            "was made by another version of the plugin"
        ) from error


@dataclass
class SampleResult:
    """Files that a sampling call wrote, and those of an earlier call that it took away for good."""

    run: Path
    step: int
    files: list[Path]
    overview: list[Path]
    removed: list[Path] = field(default_factory=list)
    num_samples: int = 0

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        names = {"files": self.files, "overview": self.overview, "removed": self.removed}
        paths = {name: [str(path) for path in each] for name, each in names.items()}
        return {"run": str(self.run), "step": self.step, **paths}


def sample_run(
    run: Path | str,
    num_samples: int | None = None,
    seed: int | None = None,
    label: int | str | None = None,
    out: Path | str | None = None,
    device: str = "auto",
    plugin: str | None = None,
    file_format: str | None = None,
    step: int | None = None,
    *,
    seeds: Sequence[int] | None = None,
    truncation: float | None = None,
    grid: str | None = None,
    latent: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> SampleResult:
    """Write samples of a run: one file each and one overview. Samples that an earlier call left in the folder are removed.

    Args:
        num_samples: how many of one seed; None: 16, or as many as the grid has places.
        seeds: one sample of each instead, named by it.
        truncation: draws samples towards the mean latent: 1 leaves them, 0 is the mean.
        grid: ``classes``: the overview's rows are seeds, its columns classes; ``4x8``: its rows and columns.
        latent: a file of ``gen project``: its latents instead of seeds.
        options: the plugin's own, such as ``temperature`` of the text plugin.

    Raises:
        GenError: where the run cannot be read, what is asked for contradicts itself, or a file of the user's is in the way.
    """
    wanted = Wanted(num_samples, seed, None if seeds is None else tuple(seeds), label, truncation, grid, latent)
    wanted.check()
    loaded = _load_to_write(run, device, plugin, file_format, step)
    if options:
        loaded.modality.use_sampling(sampling_options(loaded.record, options), wanted.count)
    drawn = draw_wanted(loaded, wanted)
    return publish(loaded, drawn, Path(out) if out is not None else loaded.folder / "samples" / wanted.folder)


def publish(loaded: LoadedRun, drawn: Drawn, folder: Path) -> SampleResult:
    """Write samples and their overview into a folder, and take away what an earlier call left there."""
    modality = loaded.modality
    if fault := value_fault(drawn.batch.values):
        raise CheckpointError(
            f"{loaded.folder} step {loaded.step}: its samples hold {fault}, so nothing is written; use an earlier checkpoint "
            "(--step), or fetch it again"
        )
    with written_anew(folder) as draft:
        files = _write(modality, drawn, draft)
        with interrupts.held():
            stem = draft.folder / "overview"
            if drawn.columns is None:
                overview = modality.overview(drawn.batch.slice(0, modality.overview_samples), stem)
            else:
                overview = modality.table(drawn.shown, drawn.columns, stem)
        shown = draft.place(overview)
    return SampleResult(loaded.folder, loaded.step, files, shown, draft.removed, len(drawn.batch))


def verify_file(
    run: Path | str, path: Path, options: Mapping[str, Any], plugin: str | None = None
) -> Mapping[str, float | int]:
    """What a file says of the watermark that ``options`` of the sampling of a run, or of an exported folder, describe.

    Raises:
        GenError: where the run's plugin knows no watermark, or the file cannot be read.
    """
    _, record, modality = open_modality(run, plugin)
    model = sampling_model(record)
    if model is None or WATERMARK not in model.model_fields:
        others = ", ".join(plugins_with(WATERMARK)) or "no plugin that is installed"
        raise ConfigError(f"--run {run}: samples of plugin {record.name!r} have no watermark, those of {others} have")
    return modality.verify(path, sampling_options(record, options, VERIFY_FLAGS))


def _write(modality: Modality[Any], drawn: Drawn, draft: Draft) -> list[Path]:
    """One file per sample, in blocks whose names are looked at as they come; Ctrl-C waits for the end of a block."""
    files: dict[Path, None] = {}
    for first, last, part, number in drawn.blocks(WRITE_BLOCK, modality.one_file):
        with interrupts.held():
            (draft.folder / part).mkdir(parents=True, exist_ok=True)
            new = modality.write(drawn.batch.slice(first, last), draft.folder / part, start=number)
            files |= dict.fromkeys(draft.place(new))
            interrupts.note(f"{last} of {len(drawn.batch)} samples are in {draft.target}")
    return list(files)


def convert_run(
    run: Path | str,
    sources: Sequence[Path],
    out: Path | str | None = None,
    device: str = "auto",
    plugin: str | None = None,
    file_format: str | None = None,
    step: int | None = None,
) -> SampleResult:
    """Write what a run's generator makes of files or folders, one file each, for plugins that can.

    Raises:
        GenError: where the plugin makes nothing of files, or a file is missing or of the wrong kind.
    """
    missing = [str(path) for path in sources if not path.exists()]
    if missing:
        raise DataError(f"--from: {', '.join(missing)} does not exist; expected files or folders")
    loaded = _load_to_write(run, device, plugin, file_format, step)
    folder = Path(out) if out is not None else loaded.folder / "samples" / "from"
    with writing(folder):
        before = _states(folder)
        try:
            with torch.no_grad():
                files = loaded.modality.convert(loaded.generator, sources, folder)
        except KeyboardInterrupt:
            if new := [path for path, state in _states(folder).items() if before.get(path) != state]:
                last = max(new, key=lambda path: path.stat().st_mtime_ns)
                interrupts.note(f"{len(new)} files were written to {folder}; {last.name}, the last, may be cut short")
            raise
    return SampleResult(loaded.folder, loaded.step, files, [], [], len(files))


def _states(folder: Path) -> dict[Path, tuple[int, int]]:
    """Time and size of every file in a folder."""
    stats = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


def _load_to_write(run: Path | str, device: str, plugin: str | None, file_format: str | None, step: int | None) -> LoadedRun:
    """A run whose modality writes the format that is asked for.

    Raises:
        ConfigError: listing the known ones, where it cannot.
    """
    loaded = load_run(run, device, plugin, step)
    known = loaded.modality.formats
    if file_format is not None and file_format not in known:
        listed = "; ".join(f"{name} ({about})" for name, about in known.items())
        way = f"known: {listed}" if known else "it has one format of its own; leave --format out"
        raise ConfigError(f"--format {file_format}: plugin {loaded.record.name} does not write it; {way}")
    loaded.modality.file_format = file_format
    return loaded


def _label(modality: Modality[Any], label: int | str | None) -> int | None:
    classes = [str(name) for name in modality.facts.get("classes") or ()]
    if label is None:
        return None
    if str(label) in classes:
        return classes.index(str(label))
    if str(label).isdigit() and int(label) < len(classes):
        return int(label)
    if not classes:
        raise ConfigError(f"class {label!r} does not exist in this run, which has no classes: leave --class and --classes out")
    raise ConfigError(f"class {label!r} does not exist in this run; {nearest(str(label), classes)}")

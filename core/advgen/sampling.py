"""Sampling from a run: the same seed gives the same sample i, whatever the count."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advgen import interrupts
from advgen.config.load import options_of
from advgen.config.model import RunConfig
from advgen.contracts import Batch, Corpus, Generator, Modality
from advgen.errors import CheckpointError, ConfigError, DataError, PluginError
from advgen.randomness import keyed_generator, seed_networks
from advgen.registry import PluginRecord, find_plugin
from advgen.runs import RunFolder, checkpoint, warning_of_divergence
from advgen.runs.folder import is_export
from advgen.setup import modality_class, read_corpus
from advgen.state import load_network
from advgen.world import pick_device
from advgen.written import Written

BLOCK = 64
WRITE_BLOCK = 16
REFRESH_BLOCKS = 16


@torch.no_grad()
def refresh_statistics(network: nn.Module, modality: Modality[Any], device: torch.device) -> None:
    """Estimate BatchNorm statistics of averaged weights afresh, from a fixed seed; leaves the network in eval mode."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over the blocks
    network.train()
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
        for block in range(REFRESH_BLOCKS if layers else 0):
            seed_networks(0, "statistics", block)
            noise, condition = _inputs(modality, keyed_generator(0, "statistics", block), None, network, device)
            network(noise, condition)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.eval()


@torch.no_grad()
def draw_samples(
    network: nn.Module, modality: Modality[Any], count: int, *, seed: int, device: torch.device, label: int | None = None
) -> Batch:
    """``count`` samples on the CPU, in fixed blocks: sample i depends on the seed and i alone."""
    blocks, size = [], modality.sample_block
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
        for block in range(-(-count // size)):
            seed_networks(seed, "sampling", block)
            noise, condition = _inputs(modality, keyed_generator(seed, "sample", block), label, network, device, size)
            sample = network(noise, condition)
            batch = modality.postprocess(sample, condition).to("cpu")
            blocks.append(batch)
    return Batch.cat(blocks).slice(0, count)


@torch.no_grad()
def answer(network: nn.Module, modality: Modality[Any], asked: Batch, *, seed: int, device: torch.device) -> Batch:
    """One sample for each condition of a prepared batch, in its order, on the CPU; for modalities that are paired."""
    blocks, dtype = [], next(network.parameters()).dtype
    for start in range(0, len(asked), BLOCK):
        condition = asked.slice(start, start + BLOCK).to(device).condition
        noise = modality.noise(min(BLOCK, len(asked) - start), keyed_generator(seed, "answer", start // BLOCK))
        noise = noise.to(device, dtype if noise.is_floating_point() else noise.dtype)
        blocks.append(modality.postprocess(network(noise, condition), condition).to("cpu"))
    return Batch.cat(blocks)


def _inputs(
    modality: Modality[Any],
    rng: torch.Generator,
    label: int | None,
    network: nn.Module,
    device: torch.device,
    size: int = BLOCK,
) -> tuple[Tensor, dict[str, Tensor]]:
    condition = {name: t.to(device) for name, t in modality.condition(size, rng, label=label).items()}
    noise = modality.noise(size, rng)
    dtype = next(network.parameters()).dtype
    return noise.to(device, dtype if noise.is_floating_point() else noise.dtype), condition


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

    def draw(self, num: int, seed: int = 0, label: int | str | None = None) -> Batch:
        """``num`` samples in the prepared scale, on the CPU; ``label`` is a class's name or index.

        Raises:
            ConfigError: where the run has no such class.
        """
        chosen = _label(self.modality, label)
        return draw_samples(self.generator, self.modality, num, seed=seed, device=self.device, label=chosen)

    def answer(self, asked: Batch, seed: int = 0) -> Batch:
        """A sample for each condition of a prepared batch, in its order, on the CPU."""
        return answer(self.generator, self.modality, asked, seed=seed, device=self.device)

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


def find_run_plugin(folder: RunFolder, plugin: str | None) -> PluginRecord:
    """The plugin of a run; one that came from a file must be named again.

    Raises:
        PluginError: where a file plugin is not named, or is not the one the run was made with.
    """
    return find_plugin_of(folder.read_json("run.json"), folder.path, plugin)


def find_plugin_of(about: Mapping[str, Any], path: Path, plugin: str | None) -> PluginRecord:
    """The plugin that ``about`` names, for what lies at a path.

    Raises:
        PluginError: as ``find_run_plugin``.
    """
    if about.get("plugin_sha256") and plugin is None:
        raise PluginError(
            f"{path} was made with the plugin file {about['plugin_file']}; its code runs only when you name it: "
            f"add --plugin {path / 'plugin' / Path(about['plugin_file']).name}"
        )
    brought_by = about.get("plugin_distribution")
    named = f"{brought_by}:{about['plugin']}" if brought_by and not about.get("plugin_sha256") else about["plugin"]
    record = find_plugin(plugin or named)
    if about.get("plugin_sha256") and record.sha256 != about["plugin_sha256"]:
        raise PluginError(f"{plugin} is not the file that made {path} (sha256 differs); name the copy in its folder plugin/")
    return record


def load_run(path: Path | str, device: str = "auto", plugin: str | None = None, step: int | None = None) -> LoadedRun:
    """Load a run's generator from its newest whole checkpoint, or from ``step``; or that of an exported folder."""
    if is_export(path):
        from advgen.export.reading import load_export

        return load_export(Path(path), device, plugin, step)
    folder, chosen = RunFolder.existing(path), pick_device(device)
    config, record = folder.config(), find_run_plugin(RunFolder.existing(path), plugin)
    about = folder.read_json("run.json")
    modality = modality_class(record)(options_of(record, config), folder.read_json("facts.json"))
    parts, manifest, problems = checkpoint.load_chosen(folder.checkpoints, step)
    log = logging.getLogger("advgen")
    for problem in problems:
        log.warning("warning: %s; step %d is used instead", problem, manifest["step"])
    if step is None and (warning := warning_of_divergence(folder.path)):
        log.warning(warning)
    weights = parts.get("average", parts.get("generator"))
    if weights is None:
        raise CheckpointError(f"the checkpoint of {folder.path} holds no generator")
    with torch.random.fork_rng(devices=[]):
        dtype = torch.float64 if config.train.precision == "float64" else torch.float32
        generator = modality.generator().to(chosen, dtype)
        load_network(generator, weights, "generator")
        refresh_statistics(generator, modality, chosen)
    return LoadedRun(folder.path, config, record, modality, generator, chosen, manifest["step"], about["fingerprint"])


@dataclass
class SampleResult:
    """Files that a sampling call wrote, and those of an earlier call that it took away for good."""

    run: Path
    step: int
    files: list[Path]
    overview: list[Path]
    removed: list[Path] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        names = {"files": self.files, "overview": self.overview, "removed": self.removed}
        paths = {name: [str(path) for path in each] for name, each in names.items()}
        return {"run": str(self.run), "step": self.step, **paths}


def sample_run(
    run: Path | str,
    num_samples: int = 16,
    seed: int = 0,
    label: int | str | None = None,
    out: Path | str | None = None,
    device: str = "auto",
    plugin: str | None = None,
    file_format: str | None = None,
    step: int | None = None,
) -> SampleResult:
    """Write samples of a run: one file each and one overview. Samples that an earlier call left in the folder are removed."""
    if num_samples < 1:
        raise ConfigError(f"-n {num_samples}: expected at least one sample")
    loaded = _load_to_write(run, device, plugin, file_format, step)
    batch = loaded.draw(num_samples, seed, label)
    folder = Path(out) if out is not None else loaded.folder / "samples" / f"seed-{seed}"
    with _writing(folder):
        written = Written(folder)
        with interrupts.held():
            before = written.clear()
        files = _write(loaded.modality, batch, written)
        with interrupts.held():
            overview = loaded.modality.overview(batch.slice(0, loaded.modality.overview_samples), folder / "overview")
            written.add(overview)
    gone = sorted(set(before) - {*files, *overview})
    return SampleResult(loaded.folder, loaded.step, files, overview, gone)


def _write(modality: Modality[Any], batch: Batch, written: Written) -> list[Path]:
    """One file per sample, in blocks that are noted in the folder's record; Ctrl-C waits for the end of a block."""
    files: dict[Path, None] = {}
    for start in range(0, len(batch), WRITE_BLOCK):
        block = batch.slice(start, start + WRITE_BLOCK)
        with interrupts.held():
            new = modality.write(block, written.folder, start=start)
            written.add(new)
            files |= dict.fromkeys(new)
            interrupts.note(f"{start + len(block)} of {len(batch)} samples are in {written.folder}")
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
    with _writing(folder):
        before = _states(folder)
        try:
            with torch.no_grad():
                files = loaded.modality.convert(loaded.generator, sources, folder)
        except KeyboardInterrupt:
            if new := [path for path, state in _states(folder).items() if before.get(path) != state]:
                last = max(new, key=lambda path: path.stat().st_mtime_ns)
                interrupts.note(f"{len(new)} files were written to {folder}; {last.name}, the last, may be cut short")
            raise
    return SampleResult(loaded.folder, loaded.step, files, [])


def _states(folder: Path) -> dict[Path, tuple[int, int]]:
    """Time and size of every file in a folder."""
    stats = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Make the folder; refuse where the system does.

    Raises:
        ConfigError: with the reason, and that another folder may be named.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ConfigError(f"cannot write samples to {folder}: {error.strerror or error}; choose another --out") from error


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
    raise ConfigError(f"class {label!r} does not exist in this run; known: {', '.join(classes) or 'none (unconditional)'}")

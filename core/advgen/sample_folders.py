"""Any folder of samples judged without a model: the metrics of a run, in the same features."""

from __future__ import annotations

import csv
import functools
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from advgen.config.load import load_config
from advgen.contracts import Batch, Corpus, DataRequest, Modality
from advgen.data.datasets import names_set, whole_path
from advgen.data.labels import counted
from advgen.errors import ConfigError, DataError, GenError
from advgen.evaluation import evaluate_loaded
from advgen.files import user_path
from advgen.metrics.comparison import USUAL, Comparison
from advgen.metrics.judging import BLOCK
from advgen.metrics.real import MAX_SAMPLES
from advgen.metrics.table import plugin_metrics
from advgen.randomness import keyed_generator
from advgen.registry import PluginRecord, find_plugin
from advgen.setup import read_corpus
from advgen.world import pick_device
from advgen.written import Written

OVERVIEW = "overview"


@dataclass
class SampleFolder:
    """A folder of samples in the place of a run: what it draws is chosen among its files."""

    folder: Path
    modality: Modality[Any]
    data: Corpus
    samples: Corpus
    device: torch.device
    step: int | None = None
    truncation: float = 1.0

    @property
    def fingerprint(self) -> str:
        """Of the data, which nothing was trained on."""
        return self.data.fingerprint

    def corpus(self) -> Corpus:
        """The data that the samples are compared with."""
        return self.data

    def __len__(self) -> int:
        return sum(len(source) for source in self.samples.splits.values())

    def draw(self, num: int, seed: int = 0) -> Batch:
        """``num`` of the samples, chosen by the seed alone, in the prepared scale on the CPU."""
        chosen = torch.randperm(len(self), generator=keyed_generator(seed, "folder"))[:num]
        found, first = list[Batch](), 0
        for source in self.samples.splits.values():
            own = chosen[(chosen >= first) & (chosen < first + len(source))] - first
            for rows in own.split(BLOCK) if len(own) else ():
                batch = source.batch(rows, keyed_generator(seed, "crop"))
                found.append(self.modality.prepare(self._relabelled(batch)).to("cpu"))
            first += len(source)
        return Batch.cat(found)

    def answer(self, asked: Batch, seed: int = 0) -> Batch:
        """Files were made before anything was asked.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("samples of this plugin answer conditions, which files cannot; evaluate a run instead")

    def of_generator(self, held_out: Batch, generated: Batch) -> dict[str, float]:
        """None: nobody knows what made the files."""
        return {}

    @functools.cached_property
    def _numbers(self) -> list[int] | None:
        """The data's number of each of the folder's classes; None where one is unknown there."""
        own = [str(name) for name in self.samples.facts.get("classes") or ()]
        theirs = [str(name) for name in self.modality.facts.get("classes") or ()]
        return [theirs.index(name) for name in own] if own and set(own) <= set(theirs) else None

    def _relabelled(self, batch: Batch) -> Batch:
        condition = {name: value for name, value in batch.condition.items() if name != "label"}
        if "label" in batch.condition and self._numbers is not None:
            condition["label"] = torch.tensor(self._numbers)[batch.condition["label"]]
        return Batch(batch.values, batch.mask, condition)


def evaluate_samples(
    samples: Path | str,
    plugin: str,
    data: Path | str | None = None,
    num_samples: int | None = None,
    seed: int = 0,
    device: str = "auto",
    preset: str | None = None,
    overrides: Sequence[str] = (),
    comparison: Comparison = USUAL,
) -> dict[str, Any]:
    """Judge a folder of samples on the held-out test split of data, unless told otherwise; nothing is written.

    Args:
        samples: what the plugin reads as data; of a folder of ``gen sample``, its samples without the overview.
        plugin: a plugin's name or file.
        data: as for ``train``; None: the plugin's embedded corpus.
        num_samples: at most so many, chosen by the seed; None: as many as are held out, at most 2,000.
        preset, overrides: as for ``train``; options of the plugin decide how the data are read.
        comparison: features, real split, neighbours and blocks.

    Raises:
        GenError: where either cannot be read, or they are too few.
    """
    opened = open_folder(user_path(samples), plugin, data, device, preset, overrides)
    held = len(opened.data.splits["test"]) if "test" in opened.data.splits else 0
    fewest = comparison.neighbours + 1
    if len(opened) < fewest:
        need, fewer = comparison.need
        raise DataError(f"{samples} holds {counted(len(opened))}, {need}; bring more{fewer}")
    count = min(len(opened), num_samples or min(MAX_SAMPLES, max(held, fewest)))
    metrics, left_out = plugin_metrics(find_plugin(plugin))
    report = evaluate_loaded(opened, count, seed, metrics, comparison)
    report["left_out"] = left_out | report["left_out"]
    facts = {"samples": str(samples), "samples_sha256": opened.samples.fingerprint, "num_samples": len(opened)}
    report["protocol"] = {**facts, **report["protocol"], "skipped": list(opened.samples.bad)}
    return report


def open_folder(
    samples: Path, plugin: str, data: Path | str | None, device: str, preset: str | None, overrides: Sequence[str]
) -> SampleFolder:
    """Samples and data as the plugin reads them, the samples in the form of the data.

    Raises:
        GenError: where either cannot be read.
    """
    if not samples.exists():
        raise DataError(f"--samples {samples} does not exist; expected a folder of samples")
    record = find_plugin(plugin)
    place = None if data is None else str(data)
    if place is not None and not names_set(record, place):
        place = whole_path(place)
    config = load_config(record, preset=preset, overrides=overrides, cli={"data.path": place}).config
    modality, corpus = read_corpus(record, config, new=True)
    if modality.paired:
        raise ConfigError(
            f"--samples: a sample of plugin {record.name!r} answers a condition here, which files do not have; "
            "evaluate a run instead: gen evaluate RUN"
        )
    found = _read(samples, record, modality, config.data.max_bad)
    opened = SampleFolder(samples, modality, corpus, found, pick_device(device))
    _remark(opened, found.facts)
    return opened


def _read(samples: Path, record: PluginRecord, modality: Modality[Any], max_bad: int) -> Corpus:
    """The samples; what is said of a list that stands for the folder is said of the folder."""
    with tempfile.TemporaryDirectory() as scratch:
        place = _without_overview(samples, Path(scratch), record)
        try:
            return type(modality).read(modality.reading_alike(), DataRequest(place, max_bad, 0.0, 0.0))
        except GenError as error:
            if place.is_relative_to(scratch):
                error.args = (str(error).replace(str(place), str(samples)),)
            raise


def _remark(opened: SampleFolder, facts: Mapping[str, Any]) -> None:
    """Say which files were left out, and that unknown classes do not count."""
    log = logging.getLogger("advgen")
    for problem in opened.samples.bad:
        log.warning("skipped: %s", problem)
    if facts.get("classes") and opened._numbers is None:
        named = ", ".join(str(name) for name in facts["classes"][:5])
        log.warning("warning: %s has classes (%s ...) that the data lack; they are passed over", opened.folder, named)


def _without_overview(samples: Path, scratch: Path, record: PluginRecord) -> Path:
    """The folder; where ``gen sample`` wrote it, its one file or a list of its samples, their classes by sub-folder.

    Raises:
        DataError: where the plugin reads none of these files by their names.
    """
    names = Written(samples).names() if samples.is_dir() else []
    files = [samples / name for name in names if not name.startswith(OVERVIEW)]
    files = [file for file in files if file.is_file()]
    if not files or len(files) == len(names):
        return samples
    if len(files) == 1:
        return files[0]
    reads = record.spec.reads if record.spec is not None else ()
    if reads and not any(fnmatch(file.name.lower(), pattern) for file in files for pattern in reads):
        raise DataError(
            f"--samples {samples} holds {files[0].name} and others, of which plugin {record.name} reads none, "
            f"but {', '.join(reads)}; choose the --plugin that wrote them"
        )
    listed = scratch / "samples.csv"
    with listed.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label"])
        for file in files:
            part = file.relative_to(samples).parts
            writer.writerow([file.absolute(), part[0] if len(part) > 1 else ""])
    return listed

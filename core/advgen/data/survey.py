"""Looking through a data set before training: which plugin it is for, what is in it, what stands in the way."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from advgen.config.load import load_config, options_of
from advgen.contracts import Batch, Corpus, DataRequest
from advgen.data.archives import ZipFolder, is_zip
from advgen.data.datasets import is_address, locate, nearest_set, readers_of
from advgen.data.labels import counted
from advgen.data.manifest import is_manifest, read_manifest
from advgen.data.report import DataReport, Repeats, Show, Spread
from advgen.errors import ConfigError, DataError, GenError
from advgen.offers import offers
from advgen.progress import Progress
from advgen.registry import PluginRecord, find_plugin
from advgen.setup import modality_class

ANY_NUMBER = 2**62
MOST_LOOKED_AT = 100_000
FEW = 1000


@dataclass(frozen=True)
class Inspection:
    """A report, what it is of, and how the plugin was chosen."""

    plugin: str
    chosen: str
    path: str
    report: DataReport

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"plugin": self.plugin, "chosen": self.chosen, "path": self.path, **self.report.as_dict()}


def inspect_data(
    data: str, plugin: str | None = None, *, preset: str | None = None, overrides: Sequence[str] = (), progress: bool = True
) -> Inspection:
    """Look through a file, folder, archive or named set as training with these options would read it.

    Raises:
        GenError: where there is nothing to look at, or no plugin is the obvious one.
    """
    record, chosen, path = _find(data, plugin)
    config = load_config(record, preset=preset, overrides=overrides, cli={"data.path": data}).config
    options = options_of(record, config)
    request = DataRequest(path, ANY_NUMBER, config.data.validation_share, config.data.test_share, config.train.seed)
    if path is None:
        request = dataclasses.replace(request, address=data)
    bar = Progress(progress)
    try:
        kind = modality_class(record)
        report = kind.inspect(options, request, bar.count)
        if report is None:
            report = report_of(kind.read(options, request), bar.count)
    finally:
        bar.close()
    return Inspection(record.name, chosen, data if path is None else str(path), report)


def _find(data: str, plugin: str | None) -> tuple[PluginRecord, str, Path | None]:
    """The plugin, how it was chosen, and where the data lie; None for an address that the plugin reads itself."""
    record = find_plugin(plugin) if plugin is not None else None
    if is_address(record, data):
        readers = readers_of(record, data)
        if len(readers) > 1:
            names = ", ".join(name.partition(":")[2] for name in readers)
            raise ConfigError(f"{data} is read by {names}; choose one with --plugin")
        return (record, "as asked", None) if record is not None else (find_plugin(readers[0]), "by the address", None)
    path = locate(record, data)
    if not path.exists():
        meant = nearest_set(record, path)
        raise DataError(f"{data} does not exist; {meant}expected a file, a folder, an archive, or a set of gen data list")
    if record is not None:
        return record, "as asked", path
    record, chosen = guess_plugin(path)
    return record, chosen, locate(record, data) if is_zip(path) else path


def guess_plugin(path: Path) -> tuple[PluginRecord, str]:
    """The plugin that reads most of the files at a path, and a sentence that says so.

    Raises:
        ConfigError: where none reads any, or two read as many.
        DataError: where there are no files.
    """
    candidates = {each.name: each for each in offers() if each.reads}
    found: Counter[str] = Counter()
    num_files = 0
    for name in islice(_names(path), MOST_LOOKED_AT):
        num_files += 1
        for each in candidates.values():
            found[each.name] += any(fnmatch(name.lower(), pattern) for pattern in each.reads)
    if not num_files:
        raise DataError(f"{path} is empty; expected a folder or an archive with data in it")
    ranked = [(name, count) for name, count in found.most_common() if count]
    if not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
        counts = ", ".join(f"{name} {count}" for name, count in ranked) or "none of any plugin"
        raise ConfigError(
            f"{path} holds {counted(num_files, 'file')} ({counts}), so the plugin is not clear; name it with --plugin"
        )
    name, count = ranked[0]
    return find_plugin(candidates[name].qualified_name), f"by its files: {count} of {num_files} are of its kind"


def _names(path: Path) -> Iterator[str]:
    """File names below a path; for a list of files those that it names, and its own where it names none."""
    if is_manifest(path):
        with contextlib.suppress(GenError):
            named = [row.path.name for row in islice(read_manifest(path, lambda name, reason: None), FEW)]
            if named:
                yield from named
                return
    if is_zip(path):
        yield from (name.rsplit("/", 1)[-1] for name in ZipFolder(path).files)
        return
    if path.is_file():
        yield path.name
        return
    for _, folders, files in os.walk(path):
        folders.sort()
        yield from sorted(files)


def report_of(corpus: Corpus, show: Show) -> DataReport:
    """A report for plugins that bring none: read as for training, then sample by sample."""
    report, repeats, labels = DataReport("samples"), Repeats(), Counter[int]()
    splits = {name: source for name, source in corpus.splits.items() if name != "reference"}
    total, lengths = sum(map(len, splits.values())), Spread()
    for name, source in splits.items():
        for index in range(len(source)):
            batch = source.batch(torch.tensor([index]), torch.Generator().manual_seed(0))
            repeats.add(f"{name} {index}", _digest(batch))
            labels.update(batch.condition["label"].tolist() if "label" in batch.condition else ())
            if batch.mask is not None:
                lengths.add(int(batch.mask.sum()))
            report.count += 1
            show(report.count, total)
    classes = [str(each) for each in corpus.facts.get("classes") or ()]
    report.classes = {classes[number] if number < len(classes) else str(number): labels[number] for number in sorted(labels)}
    report.splits = {name: len(source) for name, source in splits.items()}
    report.num_bad, report.bad = len(corpus.bad), list(corpus.bad)
    report.duplicates = repeats.summary()
    report.details = {"length": lengths.summary()} if lengths.num else {}
    return report


def _digest(batch: Batch) -> bytes:
    values = batch.values.contiguous()
    return hashlib.blake2b(
        bytes(str((values.dtype, values.shape)), "utf-8") + values.numpy().tobytes(), digest_size=16
    ).digest()

"""Faults of values that plugins return, in words: ``tuple, expected a Corpus (advgen.Corpus)``; empty if there is none.

Checks read only types, shapes and names, never numbers, so none waits for a device.
Legend: B samples of a batch, L tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advgen.blame import kind_of
from advgen.border import object_fault
from advgen.records import Batch, Mode, Sample
from advgen.sources import Corpus, Source

SPLITS = ("train", "validation", "test")
JSON = "strings, finite numbers, true, false, None, lists and tables with text keys, as they are saved as JSON"


Like = int | Tensor | Batch
"""A number of samples, or a value with that many rows."""


def _count(like: Like) -> int:
    return like if isinstance(like, int) else len(like)


def instance_fault(value: Any, kind: type) -> str:
    """Find a value that is not an instance of a class that plugins import from advgen."""
    if isinstance(value, kind):
        return ""
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    return f"{kind_of(value)}, expected {article} {kind.__name__} (advgen.{kind.__name__})"


def corpus_fault(corpus: Any) -> str:
    """Find a fault of a corpus; its sources are not read."""
    if fault := instance_fault(corpus, Corpus):
        return fault
    if not isinstance(corpus.facts, Mapping):
        return f"a Corpus whose facts are {kind_of(corpus.facts)}, expected a mapping of names to {JSON}"
    if fault := json_fault(corpus.facts, "facts"):
        return f"a Corpus whose {fault}"
    if not isinstance(corpus.splits, Mapping):
        return f"a Corpus whose splits are {kind_of(corpus.splits)}, expected a mapping with {', '.join(SPLITS)}"
    if missing := [name for name in SPLITS if name not in corpus.splits]:
        there = ", ".join(map(str, corpus.splits)) or "none"
        return f"a Corpus whose splits are {there}, expected {', '.join(SPLITS)}; {' and '.join(missing)} must not be left out"
    sources = ((name, object_fault(source, Source)) for name, source in corpus.splits.items())
    if fault := _first(f"a Corpus whose splits[{name!r}] is {fault}" for name, fault in sources if fault):
        return fault
    if not isinstance(corpus.fingerprint, str) or not corpus.fingerprint:
        return f"a Corpus whose fingerprint is {corpus.fingerprint!r}, expected a text, as advgen.content_hash makes it"
    for name in ("bad", "notes"):
        if fault := texts_fault(getattr(corpus, name)):
            return f"a Corpus whose {name} are {fault}"
    return ""


def json_fault(value: Any, path: str) -> str:
    """Find the first value that JSON would not preserve, by its path: ``facts['scale'] is a Tensor, expected ...``."""
    if value is None or isinstance(value, str | bool | int):
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{path} is {value}, expected {JSON}"
    if isinstance(value, Mapping):
        if (odd := next((key for key in value if not isinstance(key, str)), None)) is not None:
            return f"{path} has the key {odd!r}, expected text keys"
        return _first(json_fault(entry, f"{path}[{key!r}]") for key, entry in value.items())
    if isinstance(value, list | tuple):
        # A vocabulary has a hundred thousand texts.
        others = ((index, entry) for index, entry in enumerate(value) if type(entry) is not str)
        return _first(json_fault(entry, f"{path}[{index}]") for index, entry in others)
    return f"{path} is a {kind_of(value)}, expected {JSON}"


def batch_fault(batch: Any, like: Like) -> str:
    """Find a fault of a batch with a given number of rows."""
    if fault := instance_fault(batch, Batch):
        return fault
    parts = (
        _prefixed("values are", rows_fault(batch.values, like)),
        _prefixed("mask is", _mask_fault(batch.mask, like)),
        _prefixed("condition is", conditions_fault(batch.condition, like)),
    )
    return _prefixed("a Batch whose", _first(parts))


def sample_fault(sample: Any, like: Like, mode: Mode = "values") -> str:
    """Find a fault of a generator's output in a mode, one sample per row."""
    if isinstance(sample, Tensor):
        return "a bare Tensor, expected a Sample (advgen.Sample); write: return Sample(values)"
    if fault := instance_fault(sample, Sample):
        return fault
    parts = (
        _prefixed("values are", rows_fault(sample.values, like)),
        _prefixed("mask is", _mask_fault(sample.mask, like)),
        _relaxed_fault(sample) if mode == "relaxed" else "",
        _log_prob_fault(sample) if mode == "log_prob" else "",
    )
    return _prefixed("a Sample whose", _first(parts))


def _relaxed_fault(sample: Sample) -> str:
    relaxed = sample.relaxed
    if relaxed is None and sample.values.is_floating_point():
        return ""  # continuous values need no other tensor to carry a gradient
    expected = f"expected floats ({', '.join(map(str, sample.values.shape[:2]))}, V) for mode='relaxed'"
    if not isinstance(relaxed, Tensor):
        return f"relaxed is {kind_of(relaxed)}, {expected}"
    fits = relaxed.is_floating_point() and relaxed.dim() == 3 and relaxed.shape[:2] == sample.values.shape[:2]
    return "" if fits else f"relaxed is {_told(relaxed)}, {expected}"


def _log_prob_fault(sample: Sample) -> str:
    """Find log-probabilities and entropies of the wrong form. The estimator itself refuses missing ones."""
    for name in ("log_prob", "entropy"):
        value = getattr(sample, name)
        expected = f"expected floats {tuple(sample.values.shape[:2])} for mode='log_prob'"
        if value is not None and not isinstance(value, Tensor):
            return f"{name} is {kind_of(value)}, {expected}"
        if value is not None and not (value.is_floating_point() and value.shape == sample.values.shape[:2]):
            return f"{name} is {_told(value)}, {expected}"
    return ""


def noise_fault(noise: Any, like: Like) -> str:
    """Find a fault of noise for a given number of samples."""
    if fault := rows_fault(noise, like):
        return fault
    return "" if noise.device.type == "cpu" else f"noise on {noise.device}, expected the CPU: the core moves it"


def conditions_fault(conditions: Any, like: Like) -> str:
    """Find a fault of conditions, a mapping of names to tensors, for a given number of samples."""
    if not isinstance(conditions, Mapping) or not all(isinstance(name, str) for name in conditions):
        return f"{kind_of(conditions)}, expected a mapping of names to tensors ({_count(like)}, ...)"
    faults = ((name, rows_fault(tensor, like)) for name, tensor in conditions.items())
    return _first(f"a mapping whose {name!r} is {fault}" for name, fault in faults if fault)


def rows_fault(tensor: Any, like: Like) -> str:
    """Find a fault of a tensor that should have one row per sample."""
    rows = _count(like)
    if not isinstance(tensor, Tensor):
        return f"{kind_of(tensor)}, expected a tensor ({rows}, ...)"
    fits = tensor.dim() > 0 and tensor.shape[0] == rows
    return "" if fits else f"{_told(tensor)}, expected ({rows}, ...): one row per sample"


def shape_fault(tensor: Any, shape: tuple[int, ...], also: str = "") -> str:
    """Find a fault of a float tensor of a given shape; ``also`` names further axes that it may have."""
    expected = f"({', '.join([*map(str, shape), *([also] if also else [])])}{',' if len(shape) == 1 and not also else ''})"
    if not isinstance(tensor, Tensor):
        return f"{kind_of(tensor)}, expected a tensor {expected}"
    there = tuple(tensor.shape)
    fits = there[: len(shape)] == shape and len(there) == len(shape) + bool(also)
    return "" if fits and tensor.is_floating_point() else f"{_told(tensor)}, expected floats {expected}"


def lengths_fault(lengths: Any, like: Like) -> str:
    """Find a fault of path lengths, one number per sample."""
    return shape_fault(lengths, (_count(like),))


def logits_fault(logits: Any, tokens: Tensor) -> str:
    """Find a fault of the logits of given tokens (B, L)."""
    return shape_fault(logits, tuple(tokens.shape), "V")


def seen_fault(seen: Any, sample: Sample) -> str:
    """Find a fault of a discriminator's view of a sample."""
    if fault := rows_fault(seen, sample.values):
        return fault
    return "" if seen.is_floating_point() else f"{_told(seen)}, expected floats, which penalties can differentiate"


def sample_read_fault(read: Any) -> str:
    """Find a fault of a file that was read as a batch of one, with remarks."""
    if not isinstance(read, tuple) or len(read) != 2:
        return f"{kind_of(read)}, expected a Batch of one sample and a list of remarks"
    return batch_fault(read[0], 1) or _prefixed("remarks that are", texts_fault(read[1]))


def nats_fault(nats: Any, batch: Batch) -> str:
    """Find a fault of a likelihood, one number per position of a batch."""
    if batch.mask is not None:
        return shape_fault(nats, tuple(batch.mask.shape))
    return rows_fault(nats, batch)


def labels_fault(labels: Any, like: Like) -> str:
    """Find a fault of recognized classes, one number per sample."""
    expected = f"expected int64 ({_count(like)},), a class per sample, or None"
    if not isinstance(labels, Tensor):
        return f"{kind_of(labels)}, {expected}"
    return "" if labels.dtype is torch.int64 and labels.shape == (_count(like),) else f"{_told(labels)}, {expected}"


def costs_fault(costs: Any) -> str:
    """Find a fault of named costs, each a scalar tensor or a function that returns one."""
    if not isinstance(costs, Mapping):
        return f"{kind_of(costs)}, expected a mapping of names to scalar tensors"
    for name, cost in costs.items():
        if not callable(cost) and (fault := scalar_fault(cost)):
            return f"a mapping whose {name!r} is {fault}"
    return ""


def scalar_fault(cost: Any) -> str:
    """Find a fault of a scalar tensor."""
    if not isinstance(cost, Tensor):
        return f"{kind_of(cost)}, expected a scalar tensor"
    return "" if cost.dim() == 0 else f"{_told(cost)}, expected a scalar, such as its mean"


def numbers_fault(numbers: Any) -> str:
    """Find a fault of figures by name."""
    if not isinstance(numbers, Mapping):
        return f"{kind_of(numbers)}, expected a mapping of names to numbers"
    for name, number in numbers.items():
        if not isinstance(name, str):
            return f"a mapping with the key {name!r}, expected names"
        if not isinstance(number, Real) and not (isinstance(number, Tensor) and number.numel() == 1):
            return f"a mapping whose {name!r} is {kind_of(number)}, expected a number"
    return ""


def number_fault(number: Any) -> str:
    """Find a fault of a number."""
    return "" if isinstance(number, Real) else f"{kind_of(number)}, expected a number"


def facts_fault(facts: Any) -> str:
    """Find a fault of named facts that are shown or saved."""
    if not isinstance(facts, Mapping):
        return f"{kind_of(facts)}, expected a mapping of names to facts"
    return _prefixed("a mapping whose", _first(json_fault(fact, repr(name)) for name, fact in facts.items()))


def paths_fault(paths: Any) -> str:
    """Find a fault of a list of written files."""
    if not isinstance(paths, list | tuple):
        return f"{kind_of(paths)}, expected a list of the files that it made (pathlib.Path)"
    for path in paths:
        if not isinstance(path, Path):
            return f"a list with {path!r}, which is a {kind_of(path)}, expected pathlib.Path"
        if not path.exists():
            return f"the path {path}, which is missing, expected files that it made"
    return ""


def texts_fault(texts: Any) -> str:
    """Find a fault of a sequence of texts."""
    if isinstance(texts, Sequence) and not isinstance(texts, str) and all(isinstance(text, str) for text in texts):
        return ""
    return f"{texts!r}, expected a tuple of texts"


def text_fault(text: Any) -> str:
    """Find a fault of a text."""
    return "" if isinstance(text, str) else f"{kind_of(text)}, expected a text"


def entries_fault(table: Any, kind: type) -> str:
    """Find a fault of a mapping of names to instances of a class."""
    if not isinstance(table, Mapping):
        return f"{kind_of(table)}, expected a mapping of names to {kind.__name__}"
    faults = ((name, instance_fault(entry, kind)) for name, entry in table.items())
    return _first(f"a mapping whose {name!r} is {fault}" for name, fault in faults if fault)


def none_or(check: Callable[[Any], str]) -> Callable[[Any], str]:
    """Return a check that also accepts None."""
    return lambda value: "" if value is None else check(value)


def _mask_fault(mask: Any, like: Like) -> str:
    if mask is None:
        return ""
    if not isinstance(mask, Tensor) or mask.dtype is not torch.bool:
        came = _told(mask) if isinstance(mask, Tensor) else kind_of(mask)
        return f"{came}, expected bool ({_count(like)}, ...), True where a position is real, or None"
    return rows_fault(mask, like)


def _told(tensor: Tensor) -> str:
    """Name type and shape: ``float32 (3, 2)``."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _prefixed(words: str, fault: str) -> str:
    return f"{words} {fault}" if fault else ""


def _first(faults: Iterable[str]) -> str:
    return next((fault for fault in faults if fault), "")

"""Checks of the data: read twice alike, split without overlap, described by JSON."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch

from advgen.config.load import options_of
from advgen.contracts import Batch, DataRequest, Source
from advgen.errors import DataError
from advgen.randomness import keyed_generator
from advgen.setup import modality_class, read_corpus
from advgen.testing.subject import NUM_SAMPLES, Subject, generate, same, scratch, tensors

BLOCK = 512
MAX_COMPARED = 20_000


def corpus_is_deterministic(subject: Subject) -> None:
    """Reading twice gives the same fingerprint, facts and samples, whatever the global random state."""
    one = subject.corpus
    torch.manual_seed(torch.seed() % 2**32)
    other = read_corpus(subject.record, subject.config)[1]
    prints = one.fingerprint, other.fingerprint
    subject.expect(prints[0] == prints[1], f"two readings gave the fingerprints {prints[0][:12]} and {prints[1][:12]}", "one")
    subject.expect(bool(one.fingerprint), "the fingerprint is empty", "content_hash over the data")
    subject.expect(_json(one.facts) == _json(other.facts), "two readings gave different facts", "the same facts")
    for name, source in one.splits.items():
        sizes = len(source), len(other.splits[name])
        subject.expect(sizes[0] == sizes[1], f"split {name} had {sizes[0]} and then {sizes[1]} samples", "the same number")
        for (what, first), (_, second) in zip(tensors(_rows(source)), tensors(_rows(other.splits[name])), strict=True):
            subject.expect(same(first, second), f"split {name}: {what} differs between two readings", "the same samples")


def splits_are_disjoint(subject: Subject) -> None:
    """Train, validation and test hold samples, and no more in common than the train split repeats itself."""
    splits = subject.corpus.splits
    wanted = {"train", "validation", "test"}
    subject.expect(wanted <= set(splits), f"splits are {sorted(splits)}", f"{sorted(wanted)}")
    for name in sorted(wanted):
        subject.expect(len(splits[name]) > 0, f"split {name} is empty", "samples in every split")
    train = _digests(splits["train"])
    seen = set(train)
    repeated = 1 - len(seen) / len(train)
    for name in ("validation", "test"):
        own = _digests(splits[name])
        shared = sum(digest in seen for digest in own) / len(own)
        allowed = min(2 * repeated + 0.05 + 1.5 / math.sqrt(len(own)), 0.999)
        subject.expect(
            shared <= allowed,
            f"{shared:.0%} of split {name} is also in train (which repeats {repeated:.0%} of itself)",
            "splits without overlap, such as split_indices makes them",
        )


def batches_have_the_promised_form(subject: Subject) -> None:
    """A source returns the rows asked for, in order, on the CPU, with boolean masks and conditions per sample."""
    source = subject.corpus.splits["train"]
    batch = source.batch(torch.arange(min(NUM_SAMPLES, len(source))), keyed_generator(0, "testing"))
    subject.expect(isinstance(batch, Batch), f"batch() returned {type(batch).__name__}", "an advgen.Batch")
    for what, tensor in tensors(batch):
        shape = tuple(tensor.shape)
        subject.expect(len(shape) > 0 and shape[0] == len(batch), f"{what} has shape {shape}", f"({len(batch)}, ...)")
        subject.expect(tensor.device.type == "cpu", f"{what} is on {tensor.device}", "the CPU")
    if batch.mask is not None:
        subject.expect(batch.mask.dtype is torch.bool, f"the mask is {batch.mask.dtype}", "torch.bool, True where real")
    alone = source.batch(torch.tensor([0]), keyed_generator(0, "testing"))
    for (what, one), (_, many) in zip(tensors(alone), tensors(batch), strict=True):
        subject.expect(same(one[0], many[0]), f"{what} of sample 0 depends on what else is asked for", "rows by index alone")
    _labels_fit(subject, batch)


def _labels_fit(subject: Subject, batch: Batch) -> None:
    classes, counts = subject.corpus.facts.get("classes") or (), subject.corpus.facts.get("class_counts") or ()
    subject.expect(len(classes) == len(counts), f"{len(classes)} classes have {len(counts)} class_counts", "one count a class")
    label = batch.condition.get("label")
    if label is not None:
        inside = label.dtype is torch.int64 and int(label.min()) >= 0 and int(label.max()) < len(classes)
        subject.expect(inside, f"labels {label.tolist()} ({label.dtype})", f"int64 in 0 to {len(classes) - 1}")


def facts_are_enough_to_sample(subject: Subject) -> None:
    """Facts survive JSON, and a modality built from them alone draws what the first one draws."""
    try:
        text = _json(subject.corpus.facts)
    except (TypeError, ValueError) as error:
        subject.expect(False, f"facts cannot be written as JSON: {error}", "numbers, strings, lists and tables")
    facts = json.loads(text)
    subject.expect(_json(facts) == text and set(facts) == set(subject.corpus.facts), "facts change in JSON", "text keys")
    again = modality_class(subject.record)(options_of(subject.record, subject.config), facts)
    drawn = []
    for modality in (subject.modality, again):
        torch.manual_seed(0)
        network, rng = modality.generator().eval(), keyed_generator(0, "testing")
        condition, noise = modality.condition(NUM_SAMPLES, rng), modality.noise(NUM_SAMPLES, rng)
        with torch.no_grad():
            drawn.append(modality.postprocess(generate(network, noise, condition), condition))
    for (what, one), (_, other) in zip(*map(tensors, drawn), strict=True):
        subject.expect(same(one, other), f"{what} differs when facts come from JSON", "the same samples without the data")


def prepared_samples_are_finite(subject: Subject) -> None:
    """``prepare`` keeps the number of samples and gives finite values."""
    batch = subject.real()
    for what, tensor in tensors(batch):
        subject.expect(len(tensor) == NUM_SAMPLES, f"prepared {what} has shape {tuple(tensor.shape)}", f"({NUM_SAMPLES}, ...)")
        subject.expect(bool(torch.isfinite(tensor).all()), f"prepared {what} is not finite", "finite numbers")


def unreadable_data_are_refused(subject: Subject) -> None:
    """An empty folder and an empty file end in a DataError that names the path, not in something else."""
    with scratch() as place:
        folder, file = place / "empty", place / "empty.dat"
        folder.mkdir()
        file.write_bytes(b"")
        for path in (folder, file):
            refusal = _refusal(subject, path)
            subject.expect(isinstance(refusal, DataError), f"--data {path.name} (empty) gave {refusal!r}", "a DataError")
            subject.expect(path.name in str(refusal), f"the refusal of {path.name} reads {str(refusal)!r}", "its path in it")


def _refusal(subject: Subject, path: Path) -> Exception | None:
    data = subject.config.data
    request = DataRequest(path, data.max_bad, data.validation_share, data.test_share, subject.config.train.seed)
    try:
        modality_class(subject.record).read(options_of(subject.record, subject.config), request)
    except Exception as error:  # whatever the plugin raises is the answer
        return error
    return None


def _rows(source: Source, count: int = NUM_SAMPLES) -> Batch:
    return source.batch(torch.arange(min(count, len(source))), keyed_generator(0, "testing"))


def _digests(source: Source) -> list[bytes]:
    """A hash of each sample's values and mask."""
    found: list[bytes] = []
    for start in range(0, min(len(source), MAX_COMPARED), BLOCK):
        batch = source.batch(torch.arange(start, min(start + BLOCK, len(source))), keyed_generator(0, "testing", start))
        for row in range(len(batch)):
            parts = [batch.values[row], *([] if batch.mask is None else [batch.mask[row]])]
            found.append(hashlib.sha256(b"".join(part.contiguous().numpy().tobytes() for part in parts)).digest())
    return found


def _json(facts: Any) -> str:
    return json.dumps(dict(facts), allow_nan=False, sort_keys=True)

"""Held-out metrics of a run, with the protocol beside every number and real data as the reference row."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from advgen.cache import cache_folder
from advgen.contracts import Batch, Corpus, Judge, Modality, Source
from advgen.errors import ContractError, DataError, GenError, nearest
from advgen.metrics.features import (
    KERNEL,
    NEIGHBOURS,
    frechet_distance,
    kernel_distance,
    neighbour_distances,
    precision_recall_density_coverage,
    within_class_recall,
)
from advgen.metrics.table import Metric, apply_metrics, plugin_metrics

if TYPE_CHECKING:
    from advgen.sample_folders import SampleFolder
    from advgen.sampling import LoadedRun

BLOCK = 256
MAX_SAMPLES = 2000
MAX_TRAIN = 10_000
BETTER = {
    "frechet_distance": "lower",
    "kernel_distance": "lower",
    "precision": "higher",
    "recall": "higher",
    "density": "higher",
    "coverage": "higher",
    "within_class_recall": "higher",
    "class_accuracy": "higher",
    "num_classes_hit": "higher",
    "valid_share": "higher",
}
AS_REAL = ("neighbour_distance_train", "neighbour_distance_within")
"""Best where they equal real data's: less is copying or collapse, more is noise."""


def evaluate_run(
    run: Path | str,
    num_samples: int | None = None,
    seed: int = 0,
    device: str = "auto",
    plugin: str | None = None,
    step: int | None = None,
) -> dict[str, Any]:
    """Judge a run's generator on the held-out test split; the report is also written to ``evaluation.json`` in the run.

    Args:
        run: the run's folder.
        num_samples: how many to generate; None takes the test split's size, at most 2,000.
        seed: of the noise and of the choice of real samples.
        device: where the generator runs.
        plugin: the plugin's file, for a run that was trained from one.
        step: a saved step; None takes the newest whole checkpoint.

    Raises:
        GenError: the run cannot be read, or data or samples do not allow the metrics.
    """
    from advgen.sampling import load_run

    loaded = load_run(run, device, plugin, step)
    metrics, left_out = plugin_metrics(loaded.record)
    report = evaluate_loaded(loaded, num_samples, seed, metrics)
    report["left_out"] = left_out | report["left_out"]
    _write(report, loaded.folder / "evaluation.json")
    return report


def evaluate_loaded(
    run: LoadedRun | SampleFolder, num_samples: int | None = None, seed: int = 0, metrics: Mapping[str, Metric] | None = None
) -> dict[str, Any]:
    """The report of a run that is already open, with further metrics on features; nothing is written."""
    corpus = run.corpus()
    held = len(_source(corpus, "test"))
    num_generated = min(MAX_SAMPLES, held) if num_samples is None else num_samples
    if num_samples is not None and num_samples <= NEIGHBOURS:
        raise DataError(f"-n {num_samples}: the metrics need more than {NEIGHBOURS} samples; ask for more")
    if held <= NEIGHBOURS:
        raise DataError(
            f"the test split holds {held} samples, the metrics need more than {NEIGHBOURS}; "
            "bring more data, or train with a larger data.test_share"
        )
    judge = run.modality.judge(corpus, cache_folder())
    limit = max(MAX_SAMPLES, num_generated)
    held_out = real_samples(run.modality, corpus, "test", seed=seed, limit=limit)
    split = "reference" if "reference" in corpus.splits else "train"
    reference = real_samples(run.modality, corpus, split, seed=seed, limit=num_generated)
    if run.modality.paired:
        held_out = held_out.slice(0, num_generated)
    generated = run.answer(held_out, seed=seed) if run.modality.paired else run.draw(num_generated, seed=seed)
    names = run.modality.facts.get("classes") or ()
    rows = {"generated": compare(judge, generated, held_out, names), "real": compare(judge, reference, held_out, names)}
    sizes = {}
    if not run.modality.paired:  # an answer to a held-out condition is as varied, and as new, as the conditions are
        train = pool_features(run.modality, corpus, split, judge, seed=seed, limit=MAX_TRAIN)
        sizes = {"neighbours": _add_neighbours(rows, judge, {"generated": generated, "real": held_out}, train)}
    left_out = _add_plugin_metrics(rows, judge, {"generated": generated, "real": reference}, held_out, metrics or {})
    own, notes = dict(run.modality.metrics(generated, held_out)), run.modality.metric_notes()
    left_out |= {name: note.missing for name, note in notes.items() if note.missing and name not in own}
    report = {
        "protocol": {
            "features": judge.name,
            **judge_accuracy(judge, held_out),
            "split": "test",
            "num_generated": len(generated),
            "num_real": len(held_out),
            "num_reference": len(reference),
            "seed": seed,
            "k": NEIGHBOURS,
            "kernel": KERNEL,
            "step": run.step,
            "data": corpus.fingerprint,
            "data_changed": corpus.fingerprint != run.fingerprint,
            **sizes,
            **({"metrics": {name: vars(note) for name, note in notes.items() if name in own}} if notes else {}),
        },
        **rows,
        "modality": own,
        # Other real samples are no answer to these conditions.
        "real_modality": {} if run.modality.paired else dict(run.modality.metrics(reference, held_out)),
        "left_out": left_out,
    }
    finite: dict[str, Any] = _jsonable(report)
    return finite


def _add_neighbours(rows: dict[str, dict[str, Any]], judge: Judge, sides: Mapping[str, Batch], train: Tensor) -> dict[str, int]:
    """Complete both rows, from as many samples on each side; returns how many, and of how much training data."""
    count = min(map(len, sides.values()))
    for side, batch in sides.items():
        rows[side] |= neighbour_distances(features_of(judge, batch.slice(0, count)), train, count=count)
    return {"num_samples": count, "num_train": len(train)}


def _add_plugin_metrics(
    rows: dict[str, dict[str, Any]], judge: Judge, sides: Mapping[str, Batch], held_out: Batch, metrics: Mapping[str, Metric]
) -> dict[str, str]:
    """Complete both rows; returns the metrics that failed, with the reason."""
    if not metrics:
        return {}
    real, left_out = features_of(judge, held_out), dict[str, str]()
    for side, batch in sides.items():
        values, failed = apply_metrics(metrics, features_of(judge, batch), real)
        rows[side] |= values
        left_out |= failed
    return left_out


def evaluate_modality(
    modality: Modality[Any],
    corpus: Corpus,
    judge: Judge,
    generated: Batch,
    *,
    split: str = "test",
    seed: int = 0,
    limit: int = MAX_SAMPLES,
) -> dict[str, float]:
    """All metrics of generated samples against one split, name to number: what stop rules and the best checkpoint read.

    Args:
        modality: for its prepared scale and its own metrics.
        corpus: where the real samples come from.
        judge: the feature network.
        generated: samples in the prepared scale, on the CPU.
        split: which split to compare with.
        seed: of the choice of real samples.
        limit: at most so many real samples.

    Raises:
        DataError: too few samples, or features that are not finite.
    """
    held_out = real_samples(modality, corpus, split, seed=seed, limit=limit)
    named = compare(judge, generated, held_out, modality.facts.get("classes") or ())
    numbers = {name: float(value) for name, value in named.items() if isinstance(value, int | float)}
    return dict(modality.metrics(generated, held_out)) | numbers


def real_samples(modality: Modality[Any], corpus: Corpus, split: str, *, seed: int = 0, limit: int = MAX_SAMPLES) -> Batch:
    """Up to ``limit`` samples of a split, drawn without replacement by the seed alone, in the prepared scale on the CPU."""
    return Batch.cat(list(_real_blocks(modality, corpus, split, seed, limit)))


def pool_features(modality: Modality[Any], corpus: Corpus, split: str, judge: Judge, *, seed: int, limit: int) -> Tensor:
    """(M, F) features of the samples that ``real_samples`` draws, which are never all in memory."""
    return torch.cat([features_of(judge, block) for block in _real_blocks(modality, corpus, split, seed, limit)])


def _real_blocks(modality: Modality[Any], corpus: Corpus, split: str, seed: int, limit: int) -> Iterator[Batch]:
    source = _source(corpus, split)
    random = torch.Generator().manual_seed(seed)
    for indices in torch.randperm(len(source), generator=random)[:limit].split(BLOCK):
        with torch.no_grad():
            yield modality.prepare(source.batch(indices, random)).to("cpu")


def judge_accuracy(judge: Judge, held_out: Batch) -> dict[str, float]:
    """``judge_accuracy``: share of real held-out samples that the judge knows, which every other number of it rests on."""
    recognised = _recognised(judge, held_out)
    if recognised is None or "label" not in held_out.condition:
        return {}
    return {"judge_accuracy": float((recognised == held_out.condition["label"].cpu()).double().mean())}


def better_direction(metric: str, modality: Modality[Any]) -> str:
    """``lower`` or ``higher``, as the core or the modality says; ``lower`` where nobody does."""
    note = modality.metric_notes().get(metric)
    return BETTER.get(metric) or (note.better if note else "lower")


def _source(corpus: Corpus, split: str) -> Source:
    if split not in corpus.splits:
        raise DataError(f"the data has no split {split!r}; {nearest(split, corpus.splits)}")
    if not len(corpus.splits[split]):
        raise DataError(f"the {split} split is empty; bring more data or raise data.{split}_share")
    return corpus.splits[split]


def compare(judge: Judge, candidate: Batch, real: Batch, names: Any = ()) -> dict[str, Any]:
    """Feature metrics of ``candidate`` against ``real``, and where the judge knows classes, what it recognised.

    Raises:
        DataError: too few samples, or features that are not finite.
    """
    features, real_features = features_of(judge, candidate), features_of(judge, real)
    result: dict[str, Any] = {
        "frechet_distance": frechet_distance(generated=features, real=real_features),
        "kernel_distance": kernel_distance(generated=features, real=real_features),
        **precision_recall_density_coverage(generated=features, real=real_features),
    }
    recognised = _recognised(judge, candidate)
    own = candidate.condition.get("label", recognised)
    if own is not None and "label" in real.condition:
        recalls = within_class_recall(
            generated=features, generated_labels=own, real=real_features, real_labels=real.condition["label"]
        )
        result |= {"within_class_recall": sum(recalls.values()) / len(recalls)} if recalls else {}
    return result | _class_metrics(recognised, candidate.condition.get("label"), names)


def features_of(judge: Judge, batch: Batch) -> Tensor:
    """(N, F) float64 features on the CPU, in blocks so that memory stays small.

    Raises:
        ContractError: where the judge returns another shape.
    """
    blocks = []
    for block in _blocks(batch):
        with torch.no_grad():
            features = judge.features(block)
        if features.ndim != 2 or len(features) != len(block):
            raise ContractError(
                f"judge {judge.name} returned features of shape {tuple(features.shape)}, expected ({len(block)}, features)"
            )
        blocks.append(features.to("cpu", torch.float64))
    return torch.cat(blocks)


def _blocks(batch: Batch) -> list[Batch]:
    return [batch.slice(start, start + BLOCK) for start in range(0, len(batch), BLOCK)]


def _recognised(judge: Judge, batch: Batch) -> Tensor | None:
    """(N,) int64 labels as the judge sees them, or None where the data has none."""
    with torch.no_grad():
        labels = [judge.classify(block) for block in _blocks(batch)]
    known = [label.to("cpu") for label in labels if label is not None]
    return torch.cat(known) if len(known) == len(labels) else None


def _class_metrics(recognised: Tensor | None, asked: Tensor | None, names: Any) -> dict[str, Any]:
    if recognised is None:
        return {}
    counts = torch.bincount(recognised, minlength=len(names)).tolist()
    labels = [str(name) for name in names] + [str(i) for i in range(len(names), len(counts))]
    accuracy = {} if asked is None else {"class_accuracy": float((recognised == asked).double().mean())}
    return {
        **accuracy,
        "num_classes_hit": sum(count > 0 for count in counts),
        "class_histogram": dict(zip(labels, counts, strict=True)),
    }


def _jsonable(value: Any) -> Any:
    """Plain numbers only; one that is not finite becomes null, as JSON has no NaN."""
    if isinstance(value, Mapping):
        return {str(name): _jsonable(part) for name, part in value.items()}
    if isinstance(value, Tensor):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(report: Mapping[str, Any], path: Path) -> None:
    """Replace the file at once, so that a full disk leaves the old one."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise GenError(
            f"{path} cannot be written: {error.strerror or error}; free space or make the folder writable"
        ) from error


def format_report(report: Mapping[str, Any]) -> str:
    """The report as a plain aligned table: one metric a line, generated beside real."""
    protocol = report["protocol"]
    rows = [("metric", "generated", "real", "better")]
    rows += _rows(report["generated"], report["real"], {})
    rows += _rows(report["modality"], report["real_modality"], protocol.get("metrics", {}))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    table = [f"{r[0]:<{widths[0]}}  {r[1]:>{widths[1]}}  {r[2]:>{widths[2]}}  {r[3]}".rstrip() for r in rows]
    changed = ["the data is not what the run was trained on: the test split may hold what training saw"]
    left_out = [f"left out: {name} ({reason})" for name, reason in report["left_out"].items()]
    after = [*_histogram_lines(report), *_measured_lines(protocol), *left_out]
    return "\n".join([*_head(protocol), "", *table, *after, *(changed if protocol["data_changed"] else [])])


def _head(protocol: Mapping[str, Any]) -> list[str]:
    """The protocol in a few lines."""
    origin = protocol.get("samples") or f"step {protocol['step']}"
    lines = [
        f"{origin}, {protocol['num_generated']} generated against {protocol['num_real']} real samples "
        f"of the {protocol['split']} split (seed {protocol['seed']})",
        f"features: {protocol['features']}; k {protocol['k']}; kernel {protocol['kernel']}",
    ]
    if "judge_accuracy" in protocol:
        lines.append(f"the judge knows the class of {protocol['judge_accuracy']:.1%} of the real {protocol['split']} samples")
    lines.append(f"column real: {protocol['num_reference']} train samples instead")
    if "neighbours" in protocol:
        sizes = protocol["neighbours"]
        lines.append(
            f"neighbour distances: {sizes['num_samples']} samples, among themselves and to {sizes['num_train']} train samples; "
            f"column real: {sizes['num_samples']} {protocol['split']} samples instead"
        )
    return lines


def _rows(generated: Mapping[str, Any], real: Mapping[str, Any], notes: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    better = BETTER | dict.fromkeys(AS_REAL, "as real") | {name: note["better"] for name, note in notes.items()}
    names = [name for name, value in generated.items() if not isinstance(value, Mapping)]
    return [(name, _number(generated[name]), _number(real.get(name)), better.get(name, "")) for name in names]


def _measured_lines(protocol: Mapping[str, Any]) -> list[str]:
    notes = protocol.get("metrics", {})
    return ["", *(f"{name}: {note['protocol']}" for name, note in notes.items())] if notes else []


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _histogram_lines(report: Mapping[str, Any]) -> list[str]:
    lines = []
    for side in ("generated", "real"):
        counts = report[side].get("class_histogram")
        if counts:
            lines.append(f"classes recognised, {side}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    return ["", *lines] if lines else []

"""Held-out metrics of a run, with the protocol beside every number and real data as the reference row."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from advgen.cache import cache_folder
from advgen.contracts import Batch, Corpus, Judge, Modality
from advgen.errors import DataError, GenError
from advgen.metrics.features import KERNEL, NEIGHBOURS, neighbour_distances
from advgen.metrics.judging import compare, features_of, judge_accuracy
from advgen.metrics.real import MAX_SAMPLES, pool_features, real_samples, split_of
from advgen.metrics.report import better_direction, format_report
from advgen.metrics.table import Metric, apply_metrics, plugin_metrics

if TYPE_CHECKING:
    from advgen.sampling import LoadedRun

MAX_TRAIN = 10_000


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
    run: LoadedRun, num_samples: int | None = None, seed: int = 0, metrics: Mapping[str, Metric] | None = None
) -> dict[str, Any]:
    """The report of a run that is already open, with further metrics on features; nothing is written."""
    corpus = run.corpus()
    held = len(split_of(corpus, "test"))
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


__all__ = [
    "better_direction",
    "compare",
    "evaluate_loaded",
    "evaluate_modality",
    "evaluate_run",
    "format_report",
    "pool_features",
    "real_samples",
]

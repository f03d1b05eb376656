"""Held-out metrics of a run, with the protocol beside every number and real data as the reference row."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from advgen.cache import cache_folder
from advgen.contracts import Batch, Corpus, Judge, Modality
from advgen.errors import ConfigError, DataError, GenError
from advgen.metrics.features import KERNEL, NEIGHBOURS, neighbour_distances
from advgen.metrics.judging import View, blocks_of, compare, compare_views, judge_accuracy, score_name, see
from advgen.metrics.kept import content_of, view_of_real
from advgen.metrics.real import MAX_SAMPLES, pool_features, real_samples, split_of
from advgen.metrics.scores import SPLITS
from advgen.metrics.table import Metric, apply_metrics, plugin_metrics

if TYPE_CHECKING:
    from advgen.sample_folders import SampleFolder
    from advgen.sampling import LoadedRun

MAX_TRAIN = 10_000


def evaluate_run(
    run: Path | str,
    num_samples: int | None = None,
    seed: int = 0,
    device: str = "auto",
    plugin: str | None = None,
    step: int | None = None,
    features: str | None = None,
    weights: Path | str | None = None,
    truncation: float | None = None,
) -> dict[str, Any]:
    """Judge a run's generator on the held-out test split; the report is also written to ``evaluation.json`` in the run.

    Args:
        run: the run's folder.
        num_samples: how many to generate; None takes the test split's size, at most 2,000.
        seed: of the noise and of the choice of real samples.
        device: where the generator runs.
        plugin: the plugin's file, for a run that was trained from one.
        step: a saved step; None takes the newest whole checkpoint.
        features: one of the modality's ``feature_spaces``, whose report goes to ``evaluation-NAME.json``; None: its judge.
        weights: the file with the weights of those features.
        truncation: how far samples are drawn from the mean latent; None: as the run's own samples are.

    Raises:
        GenError: the run cannot be read, or data or samples do not allow the metrics.
    """
    from advgen.sampling import load_run

    loaded = load_run(run, device, plugin, step)
    if truncation is not None:
        loaded.generator.truncation = truncation
    metrics, left_out = plugin_metrics(loaded.record)
    space = FeatureSpace(features, None if weights is None else Path(weights)) if features or weights else None
    report = evaluate_loaded(loaded, num_samples, seed, metrics, space)
    report["left_out"] = left_out | report["left_out"]
    write_report(report, loaded.folder / f"evaluation{f'-{features}' if features else ''}.json")
    return report


@dataclass(frozen=True)
class FeatureSpace:
    """Published features that a user asks for in place of the judge, and the file of their weights."""

    name: str | None
    weights: Path | None = None

    def judge(self, modality: Modality[Any], device: torch.device) -> Judge:
        """The network of these features.

        Raises:
            ConfigError: where the modality has no such features, or only weights were named.
        """
        known = modality.feature_spaces
        if self.name is None:
            raise ConfigError(f"--weights {self.weights}: the judge of the data takes none; say --features NAME too")
        if self.name not in known:
            raise ConfigError(f"--features {self.name}: {_listed(modality)}; leave --features out for the judge of the data")
        return modality.feature_space(self.name, cache_folder(), self.weights, device)


def _listed(modality: Modality[Any]) -> str:
    known = modality.feature_spaces
    if not known:
        return f"{type(modality).__name__} has no published features"
    return "known: " + "; ".join(f"{name} ({about})" for name, about in known.items())


@dataclass(frozen=True)
class RealSide:
    """What samples are compared with, in the prepared scale, and what the judge makes of it, however a run draws.

    Args:
        judge: the feature network.
        held_out: the test split, or as much of it as is looked at.
        compared: the held-out samples that the modality's own metrics compare with, which may be more.
        reference: training samples, as many as are generated, which take the generator's place in the column real.
        split: where those are from.
        view, reference_view: what the judge sees of the two.
        train: (M, F) features of training samples, for distances to the nearest; None where there are none.
        own: the modality's own metrics of ``reference``.
        count: how many samples are to be generated.
        seed: of the choice of real samples, and of the noise of generated ones.
    """

    corpus: Corpus
    judge: Judge
    held_out: Batch
    compared: Batch
    reference: Batch
    split: str
    view: View
    reference_view: View
    train: Tensor | None
    own: Mapping[str, float]
    count: int
    seed: int


def evaluate_loaded(
    run: LoadedRun | SampleFolder,
    num_samples: int | None = None,
    seed: int = 0,
    metrics: Mapping[str, Metric] | None = None,
    space: FeatureSpace | None = None,
) -> dict[str, Any]:
    """The report of a run that is already open, with further metrics on features; nothing is written."""
    return judged(run, real_side(run, num_samples, seed, space), metrics or {})


def real_side(
    run: LoadedRun | SampleFolder, num_samples: int | None = None, seed: int = 0, space: FeatureSpace | None = None
) -> RealSide:
    """What ``num_samples`` of a run (None: as many as are held out, at most 2,000) are compared with.

    Raises:
        DataError: too few samples on either side.
    """
    corpus, modality, cache = run.corpus(), run.modality, cache_folder()
    count = _count(num_samples, len(split_of(corpus, "test")))
    judge = modality.judge(corpus, cache) if space is None else space.judge(modality, run.device)
    split = "reference" if "reference" in corpus.splits else "train"
    held_out = real_samples(modality, corpus, "test", seed=seed, limit=max(MAX_SAMPLES, count))
    reference = real_samples(modality, corpus, split, seed=seed, limit=count)
    if modality.paired:
        held_out = held_out.slice(0, count)
    compared = _compared(modality, corpus, held_out, count, seed)
    # An answer to a held-out condition is as varied, and as new, as the conditions are, and other real samples are no answer to
    # them; and published features are too slow for the whole training data.
    seeks = not modality.paired and space is None
    return RealSide(
        corpus,
        judge,
        held_out,
        compared,
        reference,
        split,
        view_of_real(judge, held_out, cache),
        view_of_real(judge, reference, cache),
        pool_features(modality, corpus, split, judge, seed=seed, limit=MAX_TRAIN, cache=cache) if seeks else None,
        {} if modality.paired else dict(modality.metrics(reference, compared)),
        count,
        seed,
    )


def _compared(modality: Modality[Any], corpus: Corpus, held_out: Batch, count: int, seed: int) -> Batch:
    """What the modality's own metrics compare with: ``held_out``, or more of it where many samples are asked for."""
    most = modality.most_references or 0
    if modality.paired or count <= MAX_SAMPLES or most <= len(held_out):
        return held_out
    return real_samples(modality, corpus, "test", seed=seed, limit=most)


def judged(run: LoadedRun | SampleFolder, real: RealSide, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """The report of a run's samples as it draws them now."""
    modality, seed = run.modality, real.seed
    generated = run.answer(real.held_out, seed=seed) if modality.paired else run.draw(real.count, seed=seed)
    views = {"generated": see(real.judge, generated), "real": real.reference_view}
    names = modality.facts.get("classes") or ()
    rows = {side: compare_views(view, real.view, score_name(real.judge), names) for side, view in views.items()}
    protocol = _protocol(real, len(generated)) | {"seed": seed, "step": run.step, "data": real.corpus.fingerprint}
    if (truncation := run.truncation) != 1.0:
        protocol["truncation"] = truncation
    protocol["data_changed"] = real.corpus.fingerprint != run.fingerprint
    if real.train is not None:
        compared = {"generated": views["generated"].features, "real": real.view.features}
        protocol["neighbours"] = _add_neighbours(rows, compared, real.train)
    left_out = _add_plugin_metrics(rows, views, real.view, metrics)
    own, notes = dict(modality.metrics(generated, real.compared)), modality.metric_notes()
    own |= run.of_generator(real.held_out, generated)
    left_out |= {name: note.missing for name, note in notes.items() if note.missing and name not in own}
    protocol |= {"metrics": {name: vars(note) for name, note in notes.items() if name in own}} if notes else {}
    finite: dict[str, Any] = _jsonable(
        {"protocol": protocol, **rows, "modality": own, "real_modality": real.own, "left_out": left_out}
    )
    return finite


def _protocol(real: RealSide, num_generated: int) -> dict[str, Any]:
    """What decides the numbers: features, counts, and which real samples they are compared with."""
    judge, own = real.judge, dict(getattr(real.judge, "protocol", {}))
    score = {"score": {"name": score_name(judge), "splits": SPLITS}} if real.view.logits is not None else {}
    return {
        "features": judge.name,
        **judge_accuracy(real.view),
        "split": "test",
        "num_generated": num_generated,
        "num_real": len(real.held_out),
        **({"num_real_own": len(real.compared)} if len(real.compared) != len(real.held_out) else {}),
        "num_reference": len(real.reference),
        "k": NEIGHBOURS,
        "kernel": KERNEL,
        "real_content": content_of(blocks_of(real.held_out)),
        "real_features": content_of([Batch(real.view.seen)]),
        **({"judge": own} if own else {}),
        **score,
    }


def _count(num_samples: int | None, held: int) -> int:
    """How many samples to generate.

    Raises:
        DataError: too few on either side.
    """
    if num_samples is not None and num_samples <= NEIGHBOURS:
        raise DataError(f"-n {num_samples}: the metrics need more than {NEIGHBOURS} samples; ask for more")
    if held <= NEIGHBOURS:
        raise DataError(
            f"the test split holds {held} samples, the metrics need more than {NEIGHBOURS}; "
            "bring more data, or train with a larger data.test_share"
        )
    return min(MAX_SAMPLES, held) if num_samples is None else num_samples


def _add_neighbours(rows: dict[str, dict[str, Any]], sides: Mapping[str, Tensor], train: Tensor) -> dict[str, int]:
    """Complete both rows, from as many samples on each side; returns how many, and of how much training data."""
    count = min(map(len, sides.values()))
    for side, features in sides.items():
        rows[side] |= neighbour_distances(features, train, count=count)
    return {"num_samples": count, "num_train": len(train)}


def _add_plugin_metrics(
    rows: dict[str, dict[str, Any]], views: Mapping[str, View], real: View, metrics: Mapping[str, Metric]
) -> dict[str, str]:
    """Complete both rows; returns the metrics that failed, with the reason."""
    left_out = dict[str, str]()
    for side, view in views.items() if metrics else ():
        values, failed = apply_metrics(metrics, view.features, real.features)
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


def write_report(report: Mapping[str, Any], path: Path) -> None:
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

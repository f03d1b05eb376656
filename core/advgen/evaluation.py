"""Held-out metrics of a run, with the protocol beside every number and real data as the reference row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from advgen.cache import cache_folder
from advgen.contracts import Batch, Corpus, Judge, Modality
from advgen.data.labels import counted, held_out_notes
from advgen.errors import ConfigError, DataError
from advgen.metrics.comparison import TEST, TRAIN, USUAL, Comparison
from advgen.metrics.filing import chosen_protocol, keep_report
from advgen.metrics.judging import View, blocks_of, compare, compare_views, judge_accuracy, score_name, see
from advgen.metrics.kept import content_of, view_of_real
from advgen.metrics.neighbours import neighbour_distances
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
    comparison: Comparison = USUAL,
) -> dict[str, Any]:
    """Judge a run's generator on the held-out test split; the report is also written to ``evaluation.json`` in the run.

    An earlier report under another protocol stays beside it, as ``evaluation-DIGEST.json`` with a digest of its protocol.

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
        comparison: real split, neighbours and blocks of the metrics on features.

    Raises:
        GenError: the run cannot be read, or data or samples do not allow the metrics.
    """
    from advgen.sampling import load_run

    loaded = load_run(run, device, plugin, step)
    if truncation is not None:
        loaded.generator.truncation = truncation
    metrics, left_out = plugin_metrics(loaded.record)
    report = evaluate_loaded(loaded, num_samples, seed, metrics, comparison.within(features, weights))
    report["left_out"] = left_out | report["left_out"]
    keep_report(report, loaded.folder / f"evaluation{f'-{features}' if features else ''}.json", chosen_protocol)
    return report


@dataclass(frozen=True)
class RealSide:
    """What samples are compared with, in the prepared scale, and what the judge makes of it, however a run draws.

    Args:
        judge: the feature network.
        comparison: which split, and how.
        held_out: the test split, or as much of it as is looked at, for answers.
        references: the held-out samples that the modality's own metrics compare with, which may be more.
        compared: samples of the split that generated ones are compared with.
        column: samples of the other split, as many as are generated, which take the generator's place in the column real.
        view, column_view: what the judge sees of the two.
        train: (M, F) features of training samples, for distances to the nearest; None where there are none.
        own: the modality's own metrics of training samples against ``references``.
        count: how many samples are to be generated.
        seed: of the choice of real samples, and of the noise of generated ones.
    """

    corpus: Corpus
    judge: Judge
    comparison: Comparison
    held_out: Batch
    references: Batch
    compared: Batch
    column: Batch
    view: View
    column_view: View
    train: Tensor | None
    own: Mapping[str, float]
    count: int
    seed: int

    @property
    def held_out_view(self) -> View:
        """What the judge sees of samples that it was not trained on."""
        return self.view if self.comparison.reference == TEST else self.column_view


def evaluate_loaded(
    run: LoadedRun | SampleFolder,
    num_samples: int | None = None,
    seed: int = 0,
    metrics: Mapping[str, Metric] | None = None,
    comparison: Comparison = USUAL,
) -> dict[str, Any]:
    """The report of a run that is already open, with further metrics on features; nothing is written."""
    return judged(run, real_side(run, num_samples, seed, comparison), metrics or {})


def real_side(
    run: LoadedRun | SampleFolder, num_samples: int | None = None, seed: int = 0, comparison: Comparison = USUAL
) -> RealSide:
    """What ``num_samples`` of a run (None: as many as are held out, at most 2,000) are compared with.

    Raises:
        DataError: too few samples on either side.
        ConfigError: where samples answer held-out conditions, and training ones are to be compared with.
    """
    corpus, modality, space, cache = run.corpus(), run.modality, comparison.space, cache_folder()
    against_train = comparison.reference == TRAIN
    if modality.paired and against_train:
        raise ConfigError(f"--reference {TRAIN}: these samples answer held-out conditions; leave --reference out")
    split = "reference" if "reference" in corpus.splits else "train"
    sizes = {TEST: len(split_of(corpus, TEST)), TRAIN: len(split_of(corpus, split))}
    count = _count(num_samples, sizes, comparison)
    judge = modality.judge(corpus, cache) if space is None else space.judge(modality, run.device)
    most = max(MAX_SAMPLES, count)
    held_out = real_samples(modality, corpus, TEST, seed=seed, limit=most)
    seen = real_samples(modality, corpus, split, seed=seed, limit=most if against_train else count)
    if modality.paired:
        held_out = held_out.slice(0, count)
    references = _references(modality, corpus, held_out, count, seed)
    compared, column = (seen, held_out.slice(0, count)) if against_train else (held_out, seen)
    # An answer to a held-out condition is as varied, and as new, as the conditions are, and other real samples are no answer to
    # them; and published features are too slow for the whole training data.
    has_neighbours = not modality.paired and space is None
    return RealSide(
        corpus,
        judge,
        comparison,
        held_out,
        references,
        compared,
        column,
        view_of_real(judge, compared, cache),
        view_of_real(judge, column, cache),
        pool_features(modality, corpus, split, judge, seed=seed, limit=MAX_TRAIN, cache=cache) if has_neighbours else None,
        {} if modality.paired else dict(modality.metrics(seen.slice(0, count), references)),
        count,
        seed,
    )


def _references(modality: Modality[Any], corpus: Corpus, held_out: Batch, count: int, seed: int) -> Batch:
    """What the modality's own metrics compare with: ``held_out``, or more of it where many samples are asked for."""
    most = modality.most_references or 0
    if modality.paired or count <= MAX_SAMPLES or most <= len(held_out):
        return held_out
    return real_samples(modality, corpus, TEST, seed=seed, limit=most)


def judged(run: LoadedRun | SampleFolder, real: RealSide, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """The report of a run's samples as it draws them now."""
    modality, seed = run.modality, real.seed
    generated = run.answer(real.held_out, seed=seed) if modality.paired else run.draw(real.count, seed=seed)
    views = {"generated": see(real.judge, generated), "real": real.column_view}
    names = modality.facts.get("classes") or ()
    score = score_name(real.judge)
    rows = {side: compare_views(view, real.view, score, names, real.comparison) for side, view in views.items()}
    protocol = _protocol(real, len(generated)) | {"seed": seed, "step": run.step, "data": real.corpus.fingerprint}
    if (truncation := run.truncation) != 1.0:
        protocol["truncation"] = truncation
    protocol["data_changed"] = real.corpus.fingerprint != run.fingerprint
    if real.train is not None:
        compared = {"generated": views["generated"].features, "real": real.held_out_view.features}
        protocol["neighbours"] = _add_neighbours(rows, compared, real.train)
    left_out = _add_plugin_metrics(rows, views, real.view, metrics)
    own, notes = dict(modality.metrics(generated, real.references)), modality.metric_notes()
    own |= run.of_generator(real.held_out, generated)
    left_out |= {name: note.missing for name, note in notes.items() if note.missing and name not in own}
    protocol |= {"metrics": {name: vars(note) for name, note in notes.items() if name in own}} if notes else {}
    finite: dict[str, Any] = _jsonable(
        {"protocol": protocol, **rows, "modality": own, "real_modality": real.own, "left_out": left_out}
    )
    return finite


def _protocol(real: RealSide, num_generated: int) -> dict[str, Any]:
    """What decides the numbers: features, counts, and which real samples they are compared with."""
    judge, own, comparison = real.judge, dict(getattr(real.judge, "protocol", {})), real.comparison
    few = held_out_notes(len(split_of(real.corpus, TEST)))
    elsewhere = {} if comparison.reference == TEST else {"modality": {"split": TEST, "real_column": TRAIN}}
    score = {"score": {"name": score_name(judge), "splits": SPLITS}} if real.view.logits is not None else {}
    return {
        "features": judge.name,
        **judge_accuracy(real.held_out_view),
        "split": comparison.reference,
        "real_column": comparison.column,
        **elsewhere,
        "num_generated": num_generated,
        "num_real": len(real.compared),
        **({"num_real_own": len(real.references)} if len(real.references) != len(real.held_out) else {}),
        "num_reference": len(real.column),
        "k": comparison.neighbours,
        "kernel": comparison.kernel,
        "real_content": content_of(blocks_of(real.compared)),
        "real_features": content_of([Batch(real.view.seen)]),
        **({"caution": few[0]} if few else {}),
        **({"judge": own} if own else {}),
        **score,
    }


def _count(num_samples: int | None, sizes: Mapping[str, int], comparison: Comparison) -> int:
    """How many samples to generate, where the splits hold so many.

    Raises:
        DataError: too few on either side.
    """
    held, neighbours, block = sizes[TEST], comparison.neighbours, comparison.kid_block
    need, fewer = comparison.need
    if num_samples is not None and num_samples <= neighbours:
        raise DataError(f"-n {num_samples}: {need}; ask for more{fewer}")
    if held <= neighbours:
        raise DataError(
            f"the test split holds {counted(held)}, {need}; bring more data, or train with a larger data.test_share{fewer}"
        )
    count = min(MAX_SAMPLES, held) if num_samples is None else num_samples
    if block is not None and block > min(count, *sizes.values()):
        there = ", ".join(f"{number} {name}" for name, number in {"generated": count, **sizes}.items())
        raise DataError(f"--kid-block {block}: there are {there} samples, expected a whole block of each; take a smaller one")
    return count


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

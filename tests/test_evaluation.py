"""Evaluation of a run, with a modality of 2-D points in three clusters and a judge that reads them."""

from __future__ import annotations

import itertools
import json
import math
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from advgen.contracts import Batch, Corpus, DataRequest, MetricNote, Modality
from advgen.data.memory import ArraySource
from advgen.errors import ConfigError, ContractError, DataError, GenError
from advgen.evaluation import evaluate_loaded, evaluate_modality, evaluate_run
from advgen.metrics.comparison import Comparison
from advgen.metrics.features import frechet_distance, kernel_distance
from advgen.metrics.judging import compare
from advgen.metrics.neighbours import precision_recall_density_coverage
from advgen.metrics.real import pool_features, real_samples
from advgen.metrics.report import better_direction, format_report
from advgen.metrics.table import plugin_metrics
from advgen.offers import Offer
from advgen.registry import PluginRecord
from advgen.spec import PluginSpec

NAMES = ["red", "green", "blue"]
CENTRES = torch.tensor([[0.0, 0.0], [30.0, 0.0], [0.0, 30.0]])


def clusters(num_samples: int, seed: int, labels: torch.Tensor | None = None) -> Batch:
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_samples) % 3 if labels is None else labels
    return Batch(CENTRES[labels] + torch.randn(num_samples, 2, generator=random), None, {"label": labels})


class PointJudge:
    """Features are the points themselves; the class is the nearest centre."""

    name = "points"
    largest = 0

    def features(self, batch: Batch) -> torch.Tensor:
        self.largest = max(self.largest, len(batch))
        return batch.values

    def classify(self, batch: Batch) -> torch.Tensor | None:
        return torch.cdist(batch.values, CENTRES).argmin(dim=1)


class BlindJudge(PointJudge):
    """Knows no classes."""

    def classify(self, batch: Batch) -> torch.Tensor | None:
        return None


class PointModality(Modality[None]):
    """Sources hold points divided by ten, so that only ``prepare`` brings them to scale."""

    the_judge: Any = PointJudge()
    caches: tuple[Path, ...] = ()

    @classmethod
    def read(cls, config: None, request: DataRequest) -> Corpus:
        splits = {}
        for seed, (split, num_samples) in enumerate({"train": 900, "validation": 60, "test": 300}.items()):
            batch = clusters(num_samples, seed)
            splits[split] = ArraySource(batch.values / 10, None, batch.condition)
        return Corpus({"classes": NAMES, "class_counts": [300] * 3}, splits, "0123")

    def generator(self) -> Any: ...
    def discriminator(self) -> Any: ...
    def noise(self, num_samples, generator, *, mode="values") -> Any: ...
    def write(self, batch, folder, *, start=0) -> Any: ...
    def overview(self, batch, stem) -> Any: ...

    def judge(self, corpus: Corpus, cache: Path) -> Any:
        self.caches += (cache,)
        return self.the_judge

    def prepare(self, batch: Batch) -> Batch:
        return Batch(batch.values * 10, batch.mask, batch.condition)

    def metrics(self, generated: Batch, held_out: Batch) -> dict[str, float]:
        return {"mean_gap": float((generated.values.mean() - held_out.values.mean()).abs())}


@dataclass
class FakeRun:
    """What ``load_run`` returns, with a generator whose samples are given."""

    folder: Path
    step: int = 7
    fingerprint: str = "0123"
    record: Any = None
    truncation: float = 1.0
    shift: float = 0.0
    labels: torch.Tensor | None = None
    modality: PointModality = field(default_factory=lambda: PointModality(None, {"classes": NAMES}))
    unread: Corpus | None = None

    def corpus(self) -> Corpus:
        return self.unread or PointModality.read(None, DataRequest(None))

    def draw(self, num: int, seed: int = 0, label: int | None = None) -> Batch:
        batch = clusters(num, 100 + seed, self.labels)
        return Batch(batch.values + self.shift, None, {"label": torch.arange(num) % 3})

    def of_generator(self, held_out: Batch, generated: Batch) -> dict[str, float]:
        return {}


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    return FakeRun(tmp_path)


def test_a_perfect_generator_scores_like_real_data(run: FakeRun) -> None:
    report = evaluate_loaded(run)
    for name in ("precision", "recall", "density", "coverage", "within_class_recall"):
        assert report["generated"][name] == pytest.approx(report["real"][name], abs=0.1)
    assert report["generated"]["frechet_distance"] < 1.0
    assert report["generated"]["class_accuracy"] == report["real"]["class_accuracy"] == 1.0
    assert report["generated"]["class_histogram"] == {"red": 100, "green": 100, "blue": 100}


def test_a_shifted_generator_pays_the_squared_shift(run: FakeRun) -> None:
    straight = evaluate_loaded(run)["generated"]["frechet_distance"]
    run.shift = 10.0
    report = evaluate_loaded(run)
    assert report["generated"]["frechet_distance"] == pytest.approx(200 + straight, rel=0.05)
    assert report["generated"]["coverage"] == 0.0
    assert report["modality"]["mean_gap"] == pytest.approx(10, abs=0.5)
    assert report["real_modality"]["mean_gap"] < 0.5


def test_a_collapsed_generator_is_seen_in_recall_classes_and_accuracy(run: FakeRun) -> None:
    run.labels = torch.zeros(300, dtype=torch.int64)
    report = evaluate_loaded(run)["generated"]
    assert report["precision"] > 0.9
    assert report["coverage"] < 0.4
    assert report["num_classes_hit"] == 1
    assert report["class_accuracy"] == pytest.approx(1 / 3)
    assert report["class_histogram"] == {"red": 300, "green": 0, "blue": 0}


def test_the_protocol_stands_beside_the_numbers(run: FakeRun) -> None:
    protocol = evaluate_loaded(run, num_samples=90, seed=3)["protocol"]
    assert [len(protocol.pop(name)) for name in ("real_content", "real_features")] == [64, 64]
    assert protocol == {
        "features": "points",
        "judge_accuracy": 1.0,
        "split": "test",
        "real_column": "train",
        "num_generated": 90,
        "num_real": 300,
        "num_reference": 90,
        "seed": 3,
        "k": 5,
        "kernel": "(x.y/F + 1)^3, unbiased, whole sets",
        "step": 7,
        "data": "0123",
        "data_changed": False,
        "neighbours": {"num_samples": 90, "num_train": 900},
    }


def published(run: FakeRun, **more: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """A report of 90 samples in another protocol, and the points that it is of."""
    report = evaluate_loaded(run, 90, comparison=Comparison(**more))
    real = {split: real_samples(run.modality, run.corpus(), split).values.double() for split in ("test", "train")}
    return report, real | {"generated": run.draw(90).values.double()}


def test_samples_are_compared_with_the_training_split_where_asked_and_held_out_ones_take_their_place(run: FakeRun) -> None:
    run.shift = 3.0
    report, points = published(run, reference="train")
    sides = {"generated": points["generated"], "real": points["test"][:90]}
    for side, features in sides.items():
        expected = frechet_distance(generated=features, real=points["train"])
        assert report[side]["frechet_distance"] == pytest.approx(expected), side
    protocol = report["protocol"]
    counts = [protocol[name] for name in ("split", "num_real", "real_column", "num_reference")]
    assert counts == ["train", 900, "test", 90]
    text = format_report(report)
    assert "against 900 real samples of the train split" in text and "column real: 90 test samples instead" in text


def test_what_is_not_of_features_stays_with_the_held_out_split_whatever_the_reference(run: FakeRun) -> None:
    usual, other = evaluate_loaded(run, 90), published(run, reference="train")[0]
    for part in ("modality", "real_modality"):
        assert other[part] == pytest.approx(usual[part])
    assert other["protocol"]["modality"] == {"split": "test", "real_column": "train"}
    assert "rows of the modality itself: the test split; column real: train samples" in format_report(other)
    for side in ("generated", "real"):
        assert other[side]["neighbour_distance_train"] == pytest.approx(usual[side]["neighbour_distance_train"], rel=0.3)
    assert other["real"]["neighbour_distance_train"] > 0


def test_the_judges_accuracy_is_of_held_out_samples_whatever_the_reference(run: FakeRun) -> None:
    class TrainedJudge(PointJudge):
        """Knows the class of training samples alone."""

        def classify(self, batch: Batch) -> torch.Tensor:
            known = torch.cdist(batch.values, train).min(dim=1).values < 1e-5
            return torch.where(known, batch.condition["label"], 2 - batch.condition["label"])

    train = real_samples(run.modality, run.corpus(), "train").values
    run.modality.the_judge = TrainedJudge()
    for reference in ("test", "train"):
        report = published(run, reference=reference)[0]
        assert report["protocol"]["judge_accuracy"] == pytest.approx(1 / 3, abs=0.1), reference


def test_neighbours_and_blocks_that_were_asked_for_are_those_of_the_numbers_and_of_the_protocol(run: FakeRun) -> None:
    report, points = published(run, neighbours=2, kid_block=40)
    sides = {"generated": points["generated"], "real": points["test"]}
    expected = precision_recall_density_coverage(**sides, neighbours=2)
    expected["kernel_distance"] = kernel_distance(**sides, block=40)
    assert {name: report["generated"][name] for name in expected} == pytest.approx(expected)
    assert report["generated"]["density"] != evaluate_loaded(run, 90)["generated"]["density"]
    assert report["generated"]["within_class_recall"] != evaluate_loaded(run, 90)["generated"]["within_class_recall"]
    assert report["protocol"]["k"] == 2
    assert report["protocol"]["kernel"] == "(x.y/F + 1)^3, unbiased, mean over blocks of 40"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"reference": "validation"}, "--reference validation: known: test, train"),
        ({"neighbours": 0}, "--neighbours 0: expected 1 or more"),
        ({"kid_block": 1}, "--kid-block 1: expected 2 or more samples"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Comparison(**wrong)


def test_a_block_or_neighbours_beyond_the_samples_are_refused_before_the_judge_trains(run: FakeRun) -> None:
    with pytest.raises(DataError, match="--kid-block 91: there are 90 generated, 300 test, 900 train samples"):
        published(run, kid_block=91)
    with pytest.raises(
        DataError, match=r"-n 90: the metrics need more than 90 samples for 90 neighbours; .* or take fewer --neighbours"
    ):
        published(run, neighbours=90)
    assert run.modality.caches == ()


def test_answers_to_held_out_conditions_are_not_compared_with_training_samples(run: FakeRun) -> None:
    run.modality.paired = True
    with pytest.raises(ConfigError, match="--reference train: these samples answer held-out conditions"):
        published(run, reference="train")


def test_the_same_seed_gives_the_same_report_and_another_seed_another(run: FakeRun) -> None:
    assert evaluate_loaded(run, 60, seed=1) == evaluate_loaded(run, 60, seed=1)
    assert evaluate_loaded(run, 60, seed=1)["real"] != evaluate_loaded(run, 60, seed=2)["real"]


def test_the_report_is_written_into_the_run_as_plain_json(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    sampling = types.ModuleType("advgen.sampling")
    sampling.load_run = lambda *arguments: asked.append(arguments) or run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "advgen.sampling", sampling)
    monkeypatch.setattr("advgen.evaluation.plugin_metrics", lambda record: ({}, {}))
    report = evaluate_run("somewhere", 60, device="cpu", plugin="./points.py")
    assert asked == [("somewhere", "cpu", "./points.py", None)]
    assert json.loads((run.folder / "evaluation.json").read_text()) == report
    assert [path.name for path in run.folder.iterdir()] == ["evaluation.json"]


def test_a_report_under_another_protocol_leaves_the_earlier_ones_beside_it(
    run: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = types.ModuleType("advgen.sampling")
    sampling.load_run = lambda *arguments: run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "advgen.sampling", sampling)
    monkeypatch.setattr("advgen.evaluation.plugin_metrics", lambda record: ({}, {}))

    def kept() -> list[Any]:
        (run.folder / "evaluation.json").rename(latest := run.folder / "evaluation-.json")
        found = [json.loads(path.read_text()) for path in sorted(run.folder.glob("evaluation-*.json"))]
        latest.rename(run.folder / "evaluation.json")
        return found

    first, second = evaluate_run("somewhere", 60), evaluate_run("somewhere", 60, seed=1)
    assert kept() == [second, first]
    fewer = evaluate_run("somewhere", 50)
    assert kept()[0] == fewer and first in kept() and second in kept() and len(kept()) == 3
    again = evaluate_run("somewhere", 60, seed=1)
    assert kept()[0] == again and first in kept() and fewer in kept() and len(kept()) == 3
    evaluate_run("somewhere", 60, seed=1)
    assert len(kept()) == 3


def test_a_report_that_cannot_be_written_is_refused_by_name(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = types.ModuleType("advgen.sampling")
    sampling.load_run = lambda *arguments: run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "advgen.sampling", sampling)
    monkeypatch.setattr("advgen.evaluation.plugin_metrics", lambda record: ({}, {}))
    run.folder = run.folder / "gone"
    with pytest.raises(GenError, match=r"evaluation\.json cannot be written: No such file"):
        evaluate_run("somewhere", 60)


def test_a_metric_that_is_not_finite_becomes_null(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PointModality, "metrics", lambda *_: {"odd": math.nan, "tensor": torch.tensor(2.0)})
    report = evaluate_loaded(run, 60)
    assert report["modality"] == {"odd": None, "tensor": 2.0}
    assert "odd" in format_report(report)


def test_the_judge_cache_follows_the_user_folder(run: FakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    evaluate_loaded(run, 60)
    assert run.modality.caches == (tmp_path / "cache" / "advgen",)


def test_samples_that_are_not_numbers_are_refused_on_the_generated_side(run: FakeRun) -> None:
    run.shift = math.nan
    with pytest.raises(DataError, match="generated features are not finite in 60 of 60"):
        evaluate_loaded(run, 60)


@pytest.mark.parametrize("num_samples", [0, 5])
def test_too_few_samples_are_refused_before_the_judge_trains(run: FakeRun, num_samples: int) -> None:
    with pytest.raises(DataError, match=f"-n {num_samples}: the metrics need more than 5 samples"):
        evaluate_loaded(run, num_samples)
    assert run.modality.caches == ()


def test_a_missing_split_is_named_with_the_known_ones() -> None:
    corpus = PointModality.read(None, DataRequest(None))
    with pytest.raises(DataError, match="no split 'tests'; did you mean 'test'"):
        real_samples(PointModality(None, corpus.facts), corpus, "tests")


@pytest.mark.parametrize(("held", "told"), [(99, True), (100, False)])
def test_few_held_out_samples_are_warned_of_whatever_is_generated(run: FakeRun, held: int, told: bool) -> None:
    points = {"train": clusters(300, 3), "test": clusters(held, 4)}
    splits = {name: ArraySource(batch.values / 10, None, batch.condition) for name, batch in points.items()}
    run.unread = Corpus({"classes": NAMES}, splits, "0")
    for comparison in (Comparison(), Comparison(reference="train")):
        report = evaluate_loaded(run, 60, comparison=comparison)
        assert ("caution" in report["protocol"]) is told
        last = format_report(report).splitlines()[-1]
        assert last.startswith("warning: the test split holds 99 samples, and with fewer than 100 every metric") is told


def test_an_empty_split_is_refused(run: FakeRun) -> None:
    run.unread = Corpus({}, {"train": ArraySource(torch.ones(9, 2)), "test": ArraySource(torch.ones(0, 2))}, "0")
    with pytest.raises(DataError, match="the test split is empty"):
        evaluate_loaded(run)


def test_real_samples_are_distinct_prepared_and_keyed_by_the_seed() -> None:
    corpus = PointModality.read(None, DataRequest(None))
    modality = PointModality(None, corpus.facts)
    batch = real_samples(modality, corpus, "train", seed=1, limit=600)
    assert len(batch) == len(batch.values.unique(dim=0)) == 600
    assert batch.values.max() > 25
    assert torch.equal(batch.values, real_samples(modality, corpus, "train", seed=1, limit=600).values)
    assert torch.equal(batch.values[:50], real_samples(modality, corpus, "train", seed=1, limit=50).values)


def test_a_modalitys_own_metrics_take_more_references_where_more_samples_are_asked_for(
    run: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("advgen.evaluation.MAX_SAMPLES", 100)
    monkeypatch.setattr(PointModality, "metrics", lambda self, generated, held_out: {"references": float(len(held_out))})
    counts = {}
    for most, num_samples in itertools.product((None, 250), (None, 60, 150, 300)):
        monkeypatch.setattr(PointModality, "most_references", most)
        report = evaluate_loaded(run, num_samples)
        counts[most, num_samples] = report["modality"]["references"], report["real_modality"]["references"]
        assert report["protocol"]["num_real"] == max(100, num_samples or 0)
        assert report["protocol"].get("num_real_own") == (250 if (most, num_samples) == (250, 150) else None)
        assert ("own metrics: against 250" in format_report(report)) == ("num_real_own" in report["protocol"])
    assert [counts[None, n] for n in (None, 60, 150, 300)] == [(100, 100), (100, 100), (150, 150), (300, 300)]
    assert [counts[250, n] for n in (None, 60, 150, 300)] == [(100, 100), (100, 100), (250, 250), (300, 300)]


def test_judges_see_blocks_so_that_memory_stays_small() -> None:
    judge = PointJudge()
    compare(judge, clusters(600, 1), clusters(700, 2))
    assert judge.largest == 256


def test_without_classes_only_feature_metrics_are_reported() -> None:
    found = compare(BlindJudge(), Batch(clusters(60, 1).values), Batch(clusters(60, 2).values))
    names = ["frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage", "two_sample_accuracy"]
    assert list(found) == names


def test_an_unconditional_generator_is_judged_within_the_classes_it_hits() -> None:
    found = compare(PointJudge(), Batch(clusters(90, 1).values), clusters(90, 2), NAMES)
    assert found["within_class_recall"] > 0.7
    assert found["num_classes_hit"] == 3
    assert "class_accuracy" not in found


def test_a_judge_that_returns_another_shape_is_refused_by_name() -> None:
    judge = PointJudge()
    judge.features = lambda batch: batch.values[None]  # type: ignore[method-assign]
    with pytest.raises(ContractError, match=r"PointJudge.features .* returned float32 \(1, 60, 2\), expected floats \(60, F\)"):
        compare(judge, clusters(60, 1), clusters(60, 2))


def test_validation_metrics_are_flat_numbers_of_the_split_that_was_asked_for() -> None:
    corpus = PointModality.read(None, DataRequest(None))
    modality = PointModality(None, corpus.facts)
    found = evaluate_modality(modality, corpus, PointJudge(), clusters(60, 9), split="validation", limit=50)
    assert {"frechet_distance", "recall", "class_accuracy", "mean_gap"} <= set(found)
    assert all(isinstance(value, float) for value in found.values())
    assert found != evaluate_modality(modality, corpus, PointJudge(), clusters(60, 9), split="test", limit=50)


def test_the_table_lines_up_generated_beside_real(run: FakeRun) -> None:
    text = format_report(evaluate_loaded(run, 90))
    lines = text.splitlines()
    assert lines[0].startswith("step 7, 90 generated against 300 real samples of the test split (seed 0)")
    header = next(line for line in lines if line.startswith("metric"))
    row = next(line for line in lines if line.startswith("frechet_distance"))
    assert row.index("lower") == header.index("better")
    assert "classes recognised, generated: red 30, green 30, blue 30" in text


def median_gap(*, generated: torch.Tensor, real: torch.Tensor) -> float:
    return float((generated.median() - real.median()).abs())


def broken(*, generated: torch.Tensor, real: torch.Tensor) -> float:
    raise ZeroDivisionError("no samples")


def test_a_plugin_metric_is_reported_for_both_rows_and_a_broken_one_costs_its_own_row_alone(run: FakeRun) -> None:
    run.shift = 10.0
    report = evaluate_loaded(run, 90, metrics={"mine.median": median_gap, "mine.broken": broken})
    assert report["generated"]["mine.median"] > 5 > report["real"]["mine.median"]
    assert report["left_out"] == {"mine.broken": "ZeroDivisionError: no samples"}
    assert "left out: mine.broken (ZeroDivisionError: no samples)" in format_report(report)


def test_metrics_of_usable_plugins_are_found_and_one_that_cannot_be_imported_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = PluginSpec(
        name="mine",
        summary="",
        config="",
        modality="",
        metrics={"distance": "advgen.metrics.features:frechet_distance", "gone": "advgen.metrics.features:gone"},
    )
    usable = PluginRecord("mine", "ok", spec=spec)
    monkeypatch.setattr("advgen.metrics.table.offers", lambda: (Offer("mine", "x:mine", metrics=("distance", "gone")),))
    monkeypatch.setattr("advgen.metrics.table.find_plugin", {"x:mine": usable}.__getitem__)
    metrics, left_out = plugin_metrics()
    assert metrics == {"mine.distance": frechet_distance}
    assert list(left_out) == ["mine.gone"]


def test_metrics_of_the_runs_own_plugin_file_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = {"distance": "advgen.metrics.features:frechet_distance"}
    spec = PluginSpec(name="mine", summary="", config="", modality="", metrics=metrics)
    monkeypatch.setattr("advgen.metrics.table.offers", tuple)
    assert plugin_metrics(PluginRecord("mine", "ok", spec=spec)) == ({"mine.distance": frechet_distance}, {})


def test_data_that_changed_since_training_is_said_below_the_table(run: FakeRun) -> None:
    run.fingerprint = "other"
    report = evaluate_loaded(run, 60)
    assert report["protocol"]["data_changed"]
    assert "not what the run was trained on" in format_report(report)


def test_neighbours_of_samples_stand_beside_those_of_as_many_held_out_samples(run: FakeRun) -> None:
    report = evaluate_loaded(run, 90)
    for name in ("neighbour_distance_train", "neighbour_distance_within"):
        assert report["generated"][name] == pytest.approx(report["real"][name], rel=0.4)
    run.shift = 1000.0
    report = evaluate_loaded(run, 90)
    assert report["generated"]["neighbour_distance_train"] > 1000 > 10 > report["real"]["neighbour_distance_train"]
    text = format_report(report)
    assert "neighbour distances: 90 samples, among themselves and to 900 train samples; column real: 90 test samples" in text
    assert any(line.startswith("neighbour_distance_within") and line.endswith("as real") for line in text.splitlines())


def test_the_training_side_of_neighbours_has_a_limit_and_goes_through_the_judge_in_blocks(
    run: FakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = PointJudge()
    corpus = PointModality.read(None, DataRequest(None))
    features = pool_features(PointModality(None, corpus.facts), corpus, "train", judge, seed=1, limit=600, cache=tmp_path)
    drawn = real_samples(PointModality(None, corpus.facts), corpus, "train", seed=1, limit=600)
    assert torch.equal(features, drawn.values.double()) and judge.largest == 256
    monkeypatch.setattr("advgen.evaluation.MAX_TRAIN", 400)
    assert evaluate_loaded(run, 90)["protocol"]["neighbours"]["num_train"] == 400


class HalfDeafJudge(PointJudge):
    """Calls everything the first class."""

    def classify(self, batch: Batch) -> torch.Tensor | None:
        return torch.zeros(len(batch), dtype=torch.int64)


def test_the_judges_own_accuracy_on_held_out_samples_is_printed_beside_what_rests_on_it(run: FakeRun) -> None:
    assert "the judge knows the class of 100.0% of the real test samples" in format_report(evaluate_loaded(run, 60))
    run.modality.the_judge = HalfDeafJudge()
    report = evaluate_loaded(run, 60)
    assert report["protocol"]["judge_accuracy"] == pytest.approx(1 / 3)
    run.modality.the_judge = BlindJudge()
    report = evaluate_loaded(run, 60)
    assert "judge_accuracy" not in report["protocol"] and "the judge knows" not in format_report(report)


NOTES = {"mean_gap": MetricNote("|difference of means|"), "clarity": MetricNote("heard", "higher", "install ears")}


def test_how_a_metric_is_measured_stands_below_the_table_and_what_is_missing_says_why(
    run: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PointModality, "metric_notes", lambda self: NOTES)
    report = evaluate_loaded(run, 60)
    assert list(report["protocol"]["metrics"]) == ["mean_gap"]
    assert report["left_out"] == {"clarity": "install ears"}
    lines = format_report(report).splitlines()
    assert "mean_gap: |difference of means|" in lines and "left out: clarity (install ears)" in lines
    assert next(line for line in lines if line.startswith("mean_gap ")).endswith("lower")


def test_metrics_that_are_measured_alike_share_a_line(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"gram_2": "n-grams", "gram_3": "n-grams", "tv/size": "variation", "tv/place_x": "variation", "odd": "n-grams"}
    monkeypatch.setattr(PointModality, "metric_notes", lambda self: {name: MetricNote(text) for name, text in texts.items()})
    monkeypatch.setattr(PointModality, "metrics", lambda *_: dict.fromkeys(texts, 1.0))
    lines = format_report(evaluate_loaded(run, 60)).splitlines()
    assert lines[-2:] == ["gram_2, gram_3, odd: n-grams", "tv/size, place_x: variation"]
    texts.pop("odd")
    lines = format_report(evaluate_loaded(run, 60)).splitlines()
    assert lines[-2:] == ["gram_2, 3: n-grams", "tv/size, place_x: variation"]


def test_the_direction_of_a_metric_is_the_cores_or_the_modalitys_or_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PointModality, "metric_notes", lambda self: NOTES)
    modality = PointModality(None, {})
    found = [better_direction(name, modality) for name in ("coverage", "clarity", "mean_gap", "unheard_of")]
    assert found == ["higher", "higher", "lower", "lower"]


def test_a_metric_that_is_best_as_data_have_it_says_so_in_reports_and_has_no_direction(
    run: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = {"mean_gap": MetricNote("|difference|", "as held out"), "spread": MetricNote("width", "as real")}
    monkeypatch.setattr(PointModality, "metric_notes", lambda self: notes)
    monkeypatch.setattr(PointModality, "metrics", lambda *_: {"mean_gap": 1.0, "spread": 2.0})
    lines = format_report(evaluate_loaded(run, 60)).splitlines()
    for name, better in (("mean_gap", "as held out"), ("spread", "as real"), ("two_sample_accuracy", "as real")):
        assert next(line for line in lines if line.startswith(f"{name} ")).endswith(f"  {better}")
        with pytest.raises(ConfigError, match=rf"stop\.metric '{name}' is best {better}, .* say with stop\.better"):
            better_direction(name, PointModality(None, {}))

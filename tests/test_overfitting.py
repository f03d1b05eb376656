"""D's scores of training and held-out samples: ratio and sign by hand, no trace in training, one warning."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import advgen
from advgen import Corpus, DataRequest
from advgen.config.load import load_config
from advgen.overfitting import LIMIT, SAMPLES, WINDOW, Look, OverfittingWatch, certainty, interval, overfitting
from advgen.registry import find_plugin
from advgen.runs import RunFolder, checkpoint
from advgen.setup import Setup, build
from advgen.world import World
from advgen_image.config import ImageConfig
from advgen_image.modality import ImageModality

READ = ImageModality.read
ALONE = World(0, 1, torch.device("cpu"))
TINY = ["options.width=4", "options.noise_size=8", "train.batch_size=8", "train.log_every=1"]
STYLED = ["options.family=stylegan2", "options.doublings=1", "penalties.r2=false"]


@functools.cache
def corpus() -> Corpus:
    return ImageModality.read(ImageConfig(), DataRequest(None))


@pytest.fixture(autouse=True)
def _corpus_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = corpus()
    monkeypatch.setattr(
        ImageModality, "read", classmethod(lambda cls, config, request: READ(config, request) if request.path else found)
    )


def made(*overrides: str) -> Setup:
    record = find_plugin("image")
    return build(record, load_config(record, overrides=[*TINY, *overrides]).config, ALONE)


def look(train: float, held_out: float, generated: float, spread: float = 0.1) -> Look:
    noise = spread * torch.randn(3, SAMPLES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return Look(train + noise[0], held_out + noise[1], generated + noise[2])


def test_held_out_scores_half_way_to_generated_ones_are_one_half() -> None:
    scores = [torch.full((4,), value) for value in (2.0, 1.0, 0.0)]
    assert overfitting([Look(*scores)]) == 0.5
    assert overfitting([Look(scores[0], scores[0], scores[2])]) == 0.0
    assert overfitting([Look(scores[2], scores[1], scores[0])]) is None


def test_certainty_is_the_share_of_training_scores_above_the_middle_less_those_below() -> None:
    found = certainty(Look(torch.tensor([4.0, 4.0, 4.0, -8.0]), torch.zeros(4), torch.tensor([-1.0] * 4)))
    assert found == 0.5


def weights_after(out: Path, *overrides: str) -> dict[str, dict[str, Tensor]]:
    advgen.train("image", out=out, overrides=[*TINY, *overrides], steps=3, progress=False, device="cpu")
    return checkpoint.load(out / "checkpoints", 3)[0]


@pytest.mark.parametrize("overrides", [["options.augment=diffaugment"], ["options.discriminator_norm=batch", "penalties=none"]])
def test_a_look_leaves_no_trace_in_training(overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = weights_after(tmp_path / "watched", *overrides)
    rows = [json.loads(line) for line in (tmp_path / "watched" / "metrics.jsonl").read_text().splitlines()]
    assert ["discriminator/certainty" in row for row in rows] == [True, False, False]
    monkeypatch.setattr(ImageModality, "against_overfitting", lambda self: "")
    unwatched = weights_after(tmp_path / "unwatched", *overrides)
    watched["state"] = {name: value for name, value in watched["state"].items() if not name.startswith("overfitting.")}
    torch.testing.assert_close(watched, unwatched, rtol=0, atol=0, equal_nan=True)
    assert "certainty" not in (tmp_path / "unwatched" / "metrics.jsonl").read_text()


def test_a_resumed_run_goes_on_with_the_looks_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advgen.overfitting.EVERY", 2)
    more: dict[str, Any] = {"steps": 6, "device": "cpu", "progress": False, "overrides": TINY}
    advgen.train("image", out=tmp_path / "whole", **more)
    advgen.train("image", out=tmp_path / "parts", stop_after=4, **more)
    advgen.resume(tmp_path / "parts", device="cpu", progress=False)
    found, expected = (figures(tmp_path / name) for name in ("parts", "whole"))
    assert found == expected and [row["step"] for row in found if "discriminator/certainty" in row] == [1, 3, 5]


def figures(run: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if "seconds" not in name and "per_second" not in name} for row in rows]


@pytest.mark.parametrize(("steps", "expected"), [(None, 100), (100_000, 100), (800, 50), (160, 10), (20, 10)])
def test_looks_are_closer_in_a_plan_that_is_short(steps: int | None, expected: int) -> None:
    assert interval(steps) == expected


def test_looks_are_at_samples_that_are_not_truncated() -> None:
    one, other = (OverfittingWatch(made(*STYLED, f"options.truncation={value}")).figures(1) for value in (1.0, 0.1))
    assert one == other


def test_a_run_whose_held_out_samples_make_no_group_says_that_it_is_not_watched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some_noise(tmp_path / "images", 24)
    overrides = [*TINY, *STYLED, "options.minibatch_group=8"]
    out, images = tmp_path / "run", tmp_path / "images"
    advgen.train("image", out=out, overrides=overrides, steps=2, stop_after=1, data=images, device="cpu")
    advgen.resume(out, device="cpu")
    said = r"is not watched for overfitting: \d validation samples are fewer than the 8 that a look takes"
    for text in (capsys.readouterr().err, (out / "log.txt").read_text()):
        assert len(re.findall(said, text)) == 1


def test_networks_that_compare_groups_are_shown_whole_groups() -> None:
    watch = OverfittingWatch(made(*STYLED, "options.minibatch_group=6", "train.batch_size=12"))
    assert watch.counts == [SAMPLES // 6 * 6] * 2
    assert watch.figures(1)["discriminator/certainty"] <= 1


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "run.json").write_text("{}")
    return RunFolder(tmp_path)


def watching(*looks: Look, overrides: tuple[str, ...] = ()) -> OverfittingWatch:
    watch = OverfittingWatch(made(*overrides))
    watch.looks.extend(looks)
    return watch


def test_a_discriminator_that_takes_held_out_samples_for_generated_ones_is_told_once_and_recorded(folder: RunFolder) -> None:
    watch = watching(*[look(2.0, 0.2, 0.0)] * WINDOW)
    told = watch.warning(800, folder)
    assert told is not None and told.startswith("warning: step 800: the discriminator overfits: it scores held-out samples 9")
    assert told.endswith("start anew with --options.augment diffaugment or ada, or with more images (docs/image.md, few data)")
    noted = folder.read_json("run.json")["overfitting"]
    assert noted["step"] == 800 and noted["ratio"] > LIMIT
    assert watch.warning(900, folder) is None
    assert watching(*watch.looks).warning(1000, folder) is None


def test_the_advice_is_another_where_augmentation_is_on(folder: RunFolder) -> None:
    watch = watching(*[look(2.0, 0.2, 0.0)] * WINDOW, overrides=("options.augment=ada",))
    assert "lecam" in str(watch.warning(1, folder))


@pytest.mark.parametrize(
    "looks",
    [
        [look(2.0, 1.5, 0.0)] * WINDOW,  # held-out samples are nearer to training ones
        [look(2.0, 0.2, 0.0)] * (WINDOW - 1),  # too few looks
        [look(0.1, 0.0, -0.02, spread=20.0)] * WINDOW,  # within the scatter
        [look(0.0, -1.0, 2.0)] * WINDOW,  # D is wrong altogether
    ],
)
def test_doubt_is_not_told(looks: list[Look], folder: RunFolder) -> None:
    assert watching(*looks).warning(800, folder) is None
    assert "overfitting" not in folder.read_json("run.json")


def test_a_run_says_it_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(OverfittingWatch, "_look", lambda self, step: look(2.0, 0.2, 0.0))
    monkeypatch.setattr("advgen.overfitting.EVERY", 1)
    more: dict[str, Any] = {"steps": WINDOW + 1, "device": "cpu", "overrides": TINY}
    result = advgen.train("image", out=tmp_path / "run", **more)
    assert capsys.readouterr().err.count("the discriminator overfits") == 1
    assert (result.folder / "log.txt").read_text().count("the discriminator overfits") == 1
    assert RunFolder(result.folder).read_json("run.json")["overfitting"]["step"] == WINDOW


def some_noise(folder: Path, count: int) -> None:
    """Images that have nothing in common: what D knows of one says nothing of another."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(count):
        Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{index:03}.png")


@pytest.mark.parametrize(("augment", "warned"), [("none", True), ("diffaugment", False)])
def test_few_images_are_learned_by_heart_unless_they_are_augmented(augment: str, warned: bool, tmp_path: Path) -> None:
    some_noise(tmp_path / "images", 48)
    overrides = ["options.width=8", "options.noise_size=8", f"options.augment={augment}", "penalties=none"]
    overrides += ["train.batch_size=16", "train.log_every=10", "generator.learning_rate=5e-4", "data.validation_share=0.4"]
    given: dict[str, Any] = {"data": tmp_path / "images", "out": tmp_path / "run", "device": "cpu", "progress": False}
    advgen.train("image", overrides=overrides, steps=160, stop_after=90, **given)
    assert ("overfits" in (tmp_path / "run" / "log.txt").read_text()) is warned

"""``gen evaluate --samples``: any folder of samples judged without a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import advgen
from advgen.cli import main
from advgen.errors import ConfigError, DataError
from advgen.metrics.comparison import Comparison
from advgen.metrics.report import format_report
from advgen.sample_folders import evaluate_samples, open_folder
from advgen.sampling import sample_run
from advgen_image.judge import ImageJudge, JudgeNetwork
from advgen_image.modality import ImageModality
from advgen_image.shapes import SHAPES, make_shapes

sys.path.insert(0, str(Path(__file__).parent))
from conftest import tiny


@pytest.fixture(autouse=True)
def _quick_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained judge: its features tell images apart, which is all that is needed here."""

    def judge(self: ImageModality, corpus: Any, cache: Path) -> ImageJudge:
        torch.manual_seed(0)
        network = JudgeNetwork(self.shape).eval()
        return ImageJudge(network)

    monkeypatch.setattr(ImageModality, "judge", judge)


def write_shapes(folder: Path, count: int, *, noise: float = 0.0, side: int = 32) -> Path:
    """Images of the embedded corpus in a folder for each class."""
    values, factors = make_shapes()
    random = np.random.default_rng(0)
    for index in range(count):
        place = folder / SHAPES[factors["shape"][index]]
        place.mkdir(parents=True, exist_ok=True)
        pixels = values[index].transpose(1, 2, 0) + noise * random.normal(size=(32, 32, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((side, side)).save(place / f"{index}.png")
    return folder


def test_images_of_the_data_are_nearer_than_spoilt_ones(tmp_path: Path) -> None:
    clean = evaluate_samples(write_shapes(tmp_path / "clean", 60), "image")
    spoilt = evaluate_samples(write_shapes(tmp_path / "spoilt", 60, noise=60.0), "image")
    assert clean["generated"]["frechet_distance"] < spoilt["generated"]["frechet_distance"] / 2
    assert clean["protocol"]["num_generated"] == 60 and clean["protocol"]["step"] is None
    assert clean["modality"]["valid_share"] > 0.95 > spoilt["modality"]["valid_share"]
    assert clean["modality"]["shape_as_asked"] > 0.95  # classes are known by their names
    assert format_report(clean).startswith(f"{tmp_path / 'clean'}, 60 generated against ")


def test_samples_of_another_size_are_read_in_that_of_the_data(tmp_path: Path) -> None:
    opened = open_folder(write_shapes(tmp_path, 12, side=48), "image", None, "cpu", None, ())
    assert opened.draw(12).values.shape == (12, 3, 32, 32) and len(opened) == 12


def test_the_choice_among_many_depends_on_the_seed_alone(tmp_path: Path) -> None:
    opened = open_folder(write_shapes(tmp_path, 30), "image", None, "cpu", None, ())
    assert torch.equal(opened.draw(8, 1).values, opened.draw(8, 1).values)
    assert not torch.equal(opened.draw(8, 1).values, opened.draw(8, 2).values)


def test_the_overview_of_a_folder_of_gen_sample_is_no_sample(tmp_path: Path) -> None:
    run = advgen.train("image", out=tmp_path / "run", overrides=tiny("image"), steps=1, device="cpu", progress=False).folder
    sample_run(run, 9, out=tmp_path / "flat", device="cpu")
    opened = open_folder(tmp_path / "flat", "image", None, "cpu", None, ())
    assert len(opened) == 9 and "label" not in opened.draw(9).condition
    sample_run(run, seeds=range(4), grid="classes", out=tmp_path / "classes", device="cpu")
    opened = open_folder(tmp_path / "classes", "image", None, "cpu", None, ())
    assert len(opened) == 12 and sorted(opened.draw(12).condition["label"].tolist()) == [0] * 4 + [1] * 4 + [2] * 4


def test_what_is_wrong_with_a_folder_of_gen_sample_is_said_of_the_folder(tmp_path: Path) -> None:
    result = advgen.train("image", out=tmp_path / "run", overrides=tiny("image"), steps=1, device="cpu", progress=False)
    folder = tmp_path / "made"
    files = sample_run(result.folder, 8, out=folder, device="cpu").files
    with pytest.raises(DataError, match=r"--samples .*made holds 00000\.png and others, of which plugin text reads none, but"):
        evaluate_samples(folder, "text")
    for file in files:
        file.write_bytes(b"")
    with pytest.raises(DataError) as refused:
        evaluate_samples(folder, "image")
    assert "samples.csv" not in str(refused.value) and str(folder) in str(refused.value)


def test_classes_that_the_data_lack_are_passed_over_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_shapes(tmp_path, 20)
    (folder / "circle").rename(folder / "oval")
    opened = open_folder(folder, "image", None, "cpu", None, ())
    assert "label" not in opened.draw(5).condition and "oval" in caplog.text


def test_classes_are_matched_by_name_not_by_place(tmp_path: Path) -> None:
    folder = write_shapes(tmp_path, 40)
    for path in (folder / "circle").iterdir():
        path.unlink()
    (folder / "circle").rmdir()
    labels = open_folder(folder, "image", None, "cpu", None, ()).draw(99).condition["label"]
    assert set(labels.tolist()) == {1, 2}


def test_refusals_name_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--samples .*nowhere does not exist"):
        evaluate_samples(tmp_path / "nowhere", "image")
    with pytest.raises(DataError, match=r"holds 3 samples, the metrics need more than 5"):
        evaluate_samples(write_shapes(tmp_path / "few", 3), "image")
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps({"text": f"a {n}", "start": f"so {n}"}) for n in range(80)))
    with pytest.raises(ConfigError, match=r"a sample of plugin 'text' answers a condition.*gen evaluate RUN"):
        evaluate_samples(tmp_path / "x.jsonl", "text", tmp_path / "x.jsonl", overrides=["options.prompt_field=start"])


def gen(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_the_command_prints_the_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_shapes(tmp_path, 30)
    assert gen("evaluate", "--samples", folder, "--plugin", "image", "-n", 20, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["protocol"]["num_generated"] == 20 and report["protocol"]["num_samples"] == 30


class Means:
    """Published features in name: the mean of each channel."""

    name, protocol = "means", {"layer": "none", "weights": "sha256 0"}

    def features(self, batch: advgen.Batch) -> torch.Tensor:
        return batch.values.mean(dim=(2, 3))

    def classify(self, batch: advgen.Batch) -> None: ...


def test_a_folder_is_judged_in_published_features_where_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(ImageModality, "feature_space", lambda self, *of: asked.append(of) or Means())
    monkeypatch.setattr(ImageModality, "judge", lambda *_: pytest.fail("the judge was trained"))
    folder = write_shapes(tmp_path / "in", 20)
    place = ("--samples", folder, "--plugin", "image", "--device", "cpu", "--json")
    assert gen("evaluate", *place, "--features", "inception", "--weights", "w.pth", "--reference", "train") == 0
    report = json.loads(capsys.readouterr().out)
    (name, _, weights, device), protocol = asked[0], report["protocol"]
    assert (name, weights, device) == ("inception", Path("w.pth"), torch.device("cpu"))
    assert (protocol["features"], protocol["judge"], protocol["split"]) == ("means", Means.protocol, "train")
    assert report["generated"]["frechet_distance"] >= 0 and not (tmp_path / "in" / "evaluation-inception.json").exists()
    assert gen("evaluate", *place, "--features", "vgg") == 2
    assert "--features vgg: known: inception" in capsys.readouterr().err
    assert gen("evaluate", *place, "--weights", "w.pth") == 2
    assert "say --features NAME too" in capsys.readouterr().err


def test_a_folder_needs_more_samples_than_neighbours(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match="holds 8 samples, the metrics need more than 9 samples for 9 neighbours; bring more, or take fewer --neigh",
    ):
        evaluate_samples(write_shapes(tmp_path, 8), "image", comparison=Comparison(neighbours=9))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "neither a run nor --samples"),
        (("runs/x", "--samples", "f", "--plugin", "image"), "leave out the run"),
        (("--samples", "f"), "say with --plugin NAME what reads them"),
        (("--samples", "f", "--plugin", "image", "--step", "3"), "leave out --step"),
        (
            ("--samples", "f", "--plugin", "image", "--truncation", "0.5"),
            "judged as it is, without a run: leave out --truncation",
        ),
        (("runs/x", "--data", "d"), "--data goes with --samples"),
    ],
)
def test_wrong_usage_is_told(arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert gen("evaluate", *arguments) == 2
    assert said in capsys.readouterr().err

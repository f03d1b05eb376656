"""gen sweep: quality and diversity of runs at several values of one knob."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import advgen
from advgen import ConfigError
from advgen.cli import app, main
from advgen.sweeping import Knob, format_sweep, sweep_runs

sys.path.insert(0, str(Path(__file__).parent))
from conftest import tiny


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs on the same phrases."""
    folders = [tmp_path_factory.mktemp("sweep") / name for name in ("one", "two")]
    for number, folder in enumerate(folders):
        overrides = tiny("text", "options.generator_embedding=8" if number else "options.generator_embedding=12")
        advgen.train("text", out=folder, overrides=overrides, steps=2, progress=False, device="cpu")
    return folders


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep") / "image"
    advgen.train("image", out=folder, overrides=tiny("image"), steps=1, progress=False, device="cpu")
    return folder


def test_a_temperature_near_zero_costs_text_its_variety(texts: list[Path]) -> None:
    report = sweep_runs(texts, "temperature=0.05,1", 40, device="cpu")
    assert [(Path(point["run"]).name, point["value"]) for point in report["points"]] == [
        (name, value) for name in ("one", "two") for value in ("0.05", "1")
    ]
    cold, warm = (point["metrics"] for point in report["points"][:2])
    assert cold["self_bleu_5"] > warm["self_bleu_5"] and cold["distinct_2"] < warm["distinct_2"]
    kept = json.loads((texts[1] / "sweep-temperature.json").read_text())
    assert [point["value"] for point in kept["points"]] == ["0.05", "1"] and kept["real"] == report["real"]


def test_a_sweep_of_other_values_leaves_the_earlier_ones_beside_it(texts: list[Path]) -> None:
    def kept() -> list[list[str]]:
        files = sorted(texts[0].glob("sweep-top_k*.json"), key=lambda file: len(file.name))
        return [[point["value"] for point in json.loads(file.read_text())["points"]] for file in files]

    sweep_runs(texts[:1], "top_k=5", 10, device="cpu")
    sweep_runs(texts[:1], "top_k=5,9", 10, device="cpu")
    assert kept() == [["5", "9"], ["5"]]
    sweep_runs(texts[:1], "top_k=5,9", 12, device="cpu")
    assert kept()[0] == ["5", "9"] and sorted(kept()[1:]) == [["5"], ["5", "9"]]
    for _ in range(2):
        sweep_runs(texts[:1], "top_k=5", 10, device="cpu")
        assert kept()[0] == ["5"] and kept()[1:] == [["5", "9"]] * 2


@pytest.mark.slow
def test_at_its_own_value_a_point_is_what_evaluation_says(image: Path) -> None:
    point = sweep_runs([image], "truncation=1", 40, device="cpu")["points"][0]
    from advgen.evaluation import evaluate_run

    report = evaluate_run(image, 40, device="cpu")
    expected = {
        name: value for name, value in (report["generated"] | report["modality"]).items() if not isinstance(value, dict)
    }
    assert point["metrics"] == expected


def test_truncation_is_swept_and_the_table_ends_with_real_data(image: Path) -> None:
    result = CliRunner().invoke(app, ["sweep", str(image), "--over", "truncation=0,1", "-n", "40", "--device", "cpu"])
    lines = result.output.splitlines()
    assert result.exit_code == 0 and lines[2].split() == ["run", "truncation", "frechet_distance", "precision", "recall"]
    assert [line.split()[1] for line in lines[3:5]] == ["0", "1"] and lines[5].startswith("real")
    assert float(lines[3].split()[4]) <= float(lines[4].split()[4])


def test_a_wrong_knob_value_or_run_is_named(texts: list[Path], image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        "temperature": "expected NAME=VALUE,VALUE",
        "temperature=": "expected NAME=VALUE,VALUE",
        "temperature=0.5,warm": "temperature",
        "heat=1,2": "heat",
        "truncation=0.5,high": "'high' is no number",
        "truncation=0.5,3": "3 is not between 0 and 2",
    }
    for over, message in cases.items():
        with pytest.raises(ConfigError, match=message):
            sweep_runs(texts[:1], over, 40, device="cpu")
    with pytest.raises(ConfigError, match="no sampling options"):
        sweep_runs([image], "temperature=1", 40, device="cpu")
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(texts[0]), "nowhere", "--over", "temperature=1", "-n", "40", "--device", "cpu"])
    assert ended.value.code == 5 and "nowhere is not a run folder" in capsys.readouterr().err


def test_runs_of_other_data_are_refused(texts: list[Path], tmp_path: Path) -> None:
    advgen.train("text", out=tmp_path / "run", overrides=tiny("text", "train.seed=3"), steps=1, progress=False, device="cpu")
    with pytest.raises(ConfigError, match="was trained on other data"):
        sweep_runs([texts[0], tmp_path / "run"], "temperature=1", 40, device="cpu")


def test_columns_are_chosen_by_name(texts: list[Path]) -> None:
    report = sweep_runs(texts[:1], "temperature=1", 40, device="cpu")
    lines = format_sweep(report, ["bleu_2", "distinct_2"]).splitlines()
    assert lines[2].split() == ["run", "temperature", "bleu_2", "distinct_2"]
    assert lines[-1].startswith("warning: the test split holds 25 samples")
    with pytest.raises(ConfigError, match=r"bleu_22.*bleu_2"):
        format_sweep(report, ["bleu_22"])


def test_values_are_taken_once_and_a_dash_is_an_underscore() -> None:
    assert Knob.parse("top-k=5, 10,5") == Knob("top_k", ("5", "10"))
    with pytest.raises(ConfigError, match="at most 50"):
        Knob.parse("temperature=" + ",".join(str(number) for number in range(51)))

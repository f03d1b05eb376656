"""The start block, the progress line and the end block of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import tiny

import advgen
from advgen.cli import main
from advgen.progress import Progress
from advgen.run_summary import summary_lines


def overrides(plugin: str, *more: str) -> list[str]:
    return [word for each in tiny(plugin, *more) for word in ("--set", each)]


def train(capsys: pytest.CaptureFixture[str], out: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--out", str(out), *arguments])
    assert ended.value.code == code
    return capsys.readouterr()


def test_the_start_block_says_what_is_trained_on_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    said, told = train(capsys, run, "--plugin", "audio", "--steps", "3", *overrides("audio"))
    rows = {line.split()[0]: line for line in told.splitlines() if line[:1].isalpha()}
    counts = {name: int(n) for name, n in zip(("train", "validation", "test"), (2475, 304, 293), strict=True)}
    assert f"{sum(counts.values()):,} samples (2,475 train, 304 validation, 293 test)" in rows["data"]
    assert "sample rate 8,000 Hz, length 0.256 s" in rows["samples"] and "channels 1" in rows["samples"]
    assert rows["classes"].split(maxsplit=1)[1].startswith("16 (220Hz-mellow 154, ")
    assert "generator " in rows["networks"] and "discriminator " in rows["networks"]
    assert "cpu, precision float32, threads " in rows["device"] and rows["batch"].endswith("8 samples")
    assert "3 steps, 0.01 passes over the training data (309 steps each)" in rows["plan"] and str(run) in rows["run"]
    lines = said.splitlines()
    assert lines[0] == f"{run}: step 3, the plan is complete"
    assert f"  samples  {run / 'samples' / 'step-00000003.wav'}" in lines
    assert f"  next     gen sample {run} -n 16" in lines and f"           gen evaluate {run}" in lines


def test_the_blocks_are_in_json_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said, _ = train(capsys, tmp_path / "run", "--plugin", "image", "--steps", "2", "--json", *overrides("image"))
    result = json.loads(said)
    summary = result["summary"]
    assert summary["data"]["splits"] == {"train": 4795, "validation": 614, "test": 591}
    assert summary["data"]["classes"] == {"circle": 1597, "square": 1630, "triangle": 1568}
    assert (summary["data"]["size"], summary["data"]["channels"]) == ("32x32 pixels", 3)
    networks = advgen.load_generator(tmp_path / "run").generator
    assert summary["networks"]["generator_parameters"] == sum(each.numel() for each in networks.parameters())
    assert summary["plan"]["passes"] == round(2 * 8 / 4795, 2) and summary["plan"]["steps_per_pass"] == round(4795 / 8, 2)
    assert result["next_commands"][0] == f"gen sample {tmp_path / 'run'} -n 16"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["summary"] == summary


def test_a_stopped_run_is_gone_on_with_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    said, told = train(capsys, run, "--plugin", "text", "--steps", "4", "--stop-after", "2", *overrides("text"))
    assert f"  next     gen resume {run}" in said.splitlines()
    assert "vocabulary " in told and "tokenizer word" in told and "phases likelihood 50%, adversarial 50%" in told
    with pytest.raises(SystemExit):
        main(["resume", str(run)])
    resumed = capsys.readouterr()
    assert f"{run}, from step 2" in resumed.err and "gen resume" not in resumed.out


def test_each_player_counts_passes_by_the_discriminators_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said, _ = train(
        capsys, tmp_path / "run", "--plugin", "image", "--steps", "2", "--json", *overrides("image", "discriminator.steps=3")
    )
    assert json.loads(said)["summary"]["plan"]["passes"] == round(2 * 3 * 8 / 4795, 2)


def test_many_classes_are_cut_and_unused_ones_said() -> None:
    summary = {
        "data": {
            "source": "x",
            "samples": 20,
            "splits": {"train": 20},
            "classes": {f"c{index}": 2 for index in range(10)},
            "class_conditional": False,
            "sample_rate_hz": 8000,
        },
        "networks": {"generator_parameters": 1, "receptive_field": "3 frames"},
        "device": {"name": "cpu"},
        "plan": {"batch_size": 4, "steps": None, "minutes": 5.0, "steps_per_pass": 5.0, "passes": None, "phases": [{}]},
    }
    told = "\n".join(summary_lines(summary, Path("runs/x")))
    assert "10 (c0 2, c1 2, " in told and "c8" not in told and "and 2 more); the generator does not use them" in told
    assert "5 minutes; a pass over the training data takes 5 steps" in told


def test_the_progress_line_names_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"generator/loss": 0.5, "discriminator/loss": 1.25, "generator/likelihood": 2.0, "samples_per_second": 100.0}
    Progress(True).update(7, 0.1, row)
    line = capsys.readouterr().err.split("  ")
    assert line[0].endswith("step 7") and line[1:4] == ["G loss 0.500", "D loss 1.250", "G NLL 2.000"]

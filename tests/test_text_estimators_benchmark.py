"""The benchmark of estimators: plans of equal time, curves from runs, and what is there is not made again."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

SMALL = ["options.generator_hidden=8", "options.generator_embedding=8", "options.critic_hidden=8", "options.phrases=300"]


@pytest.fixture
def bench(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module("text_estimators")


def arguments(bench: Any, folder: Path, *more: str) -> Any:
    small = [part for value in [*SMALL, "train.batch_size=8"] for part in ("--set", value)]
    return bench.parse_arguments(["--out", str(folder), *small, *more])


def test_every_arm_can_be_planned_and_a_dearer_one_has_fewer_steps(bench: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(bench, "TIMED", 2)
    found = bench.planned(arguments(bench, tmp_path, "--minutes", "0.05"))
    assert list(found) == list(bench.ARMS) and found["likelihood"] > found["rollout"] > 0
    assert json.loads((tmp_path / "steps.json").read_text()) == found


def test_a_time_is_the_mean_of_its_phases_by_their_shares(bench: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(bench, "timed", lambda config, kind, given: {"likelihood": 1.0, "adversarial": 5.0}[kind])
    given = arguments(bench, tmp_path)
    assert bench.seconds_a_step("likelihood", given) == 1.0 and bench.seconds_a_step("dense", given) == 3.0


def test_runs_become_a_curve_beside_real_text_and_are_not_trained_twice(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(bench, tmp_path, "--temperatures", "0.5,1", "--samples", "40")
    points = bench.measured("dense", 0, 2, given)
    assert [(point["value"], point["steps"]) for point in points] == [("0.5", 2), ("1", 2)]
    (tmp_path / "dense-0" / "checkpoints").rename(tmp_path / "elsewhere")  # what is measured needs no weights any more
    assert bench.measured("dense", 0, 2, given) == points
    bench.print_table(points)
    table = capsys.readouterr().out.splitlines()
    assert table[1].startswith("arm | steps | temperature | valid_share | distinct_parses | grammar_kl")
    assert table[-1].split(" | ")[3] == "1.000"  # real sentences parse

"""benchmarks/recorded.py without a GPU: what it refuses, and what its trials say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from advgen.config.load import load_config
from advgen.registry import find_plugin
from advgen.setup import Setup, build
from advgen.world import World

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import recorded
from conftest import tiny


def prepared(seed: int) -> Setup:
    record = find_plugin("image")
    given = [*tiny("image"), f"train.seed={seed}"]
    return build(record, load_config(record, overrides=given, cli={"train.steps": 9}).config, World(0, 1, torch.device("cpu")))


def test_the_benchmark_of_recorded_updates_asks_for_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["recorded.py", "image/default", "--device", "cpu"])
    with pytest.raises(SystemExit):
        recorded.main()
    assert "without a GPU" in capsys.readouterr().err


def test_equal_trials_lie_at_no_distance_and_others_do() -> None:
    one, same, other = (recorded.trial(prepared(seed), "adversarial", steps=2, timed=1) for seed in (0, 0, 1))
    assert recorded.distance(one.weights, same.weights) == 0.0 < recorded.distance(one.weights, other.weights)
    assert one.milliseconds > 0 and one.refusals == {}

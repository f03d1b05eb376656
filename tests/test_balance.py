"""The balance of G's costs: shares, running means worked out by hand, its state over resume and ranks, its refusals."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import advgen
from advgen import ConfigError, Sample
from advgen.balance import DECAY, Pull, balanced_costs, measure
from advgen.runs import checkpoint
from advgen.updates import generator

sys.path.insert(0, str(Path(__file__).parent))
from conftest import tiny

VOCODER = [
    "options.vocoder_channels=16",
    "options.vocoder_blocks=1",
    "options.critics='small'",
    "options.segment=1024",
    "train.batch_size=4",
    "train.log_every=1",
]
SHARES = ["balance={loss=1.0, mel=2.0, feature_matching=1.0}", "auxiliary=none"]


def players() -> Any:
    """The parts of the players that a balance uses."""
    world = SimpleNamespace(size=1, total=lambda tensor: tensor)
    return SimpleNamespace(state={}, world=world, dtype=torch.float64)


def costs_of(output: torch.Tensor, scales: Mapping[str, float]) -> dict[str, torch.Tensor]:
    """Costs scale * mean over the batch of a column of the output (B, 2), first "loss", then "mel"."""
    return {name: scale * output[:, ("loss", "mel").index(name)].mean() for name, scale in scales.items()}


def slope(who: Any, shares: Mapping[str, float], count: int = 3, **scales: float) -> torch.Tensor:
    """Balanced gradient at an output (B, 2) of one micro-batch."""
    output = torch.zeros(count, 2, dtype=torch.float64, requires_grad=True)
    pull = measure(Sample(output), costs_of(output, scales), shares, torch.float64)
    (cost,) = balanced_costs(who, [pull], shares)
    return torch.autograd.grad(cost, output)[0]


@pytest.mark.parametrize("scale", [1.0, 1000.0, 1e-3])
def test_costs_pull_by_their_shares_whatever_their_units(scale: float) -> None:
    found = slope(players(), {"loss": 3.0, "mel": 1.0}, loss=1.0, mel=scale)
    torch.testing.assert_close(found, torch.tensor([0.75, 0.25], dtype=torch.float64).expand(3, 2) / 3)


def test_the_running_mean_is_corrected_for_its_start() -> None:
    who, shares = players(), {"loss": 1.0}
    assert slope(who, shares, 1, loss=1.0)[0, 0].item() == pytest.approx(1.0)
    mean = (DECAY * 1 + 3) / (DECAY + 1)
    assert slope(who, shares, 1, loss=3.0)[0, 0].item() == pytest.approx(3 / mean)


def test_an_update_that_is_not_finite_leaves_no_trace_and_no_slope_gives_none() -> None:
    who = players()
    slope(who, {"loss": 1.0}, loss=2.0)
    before = who.state["balance.loss"].clone()
    assert not slope(who, {"loss": 1.0}, loss=math.nan).isfinite().any()
    assert torch.equal(who.state["balance.loss"], before)
    assert slope(players(), {"loss": 1.0}, loss=0.0).abs().max() == 0


def test_a_cut_batch_has_the_gradient_of_the_whole() -> None:
    shares = {"loss": 1.0, "mel": 3.0}
    values = torch.randn(4, 2, dtype=torch.float64)

    def at(parts: int) -> torch.Tensor:
        output = values.clone().requires_grad_()
        pulls = list[Pull]()
        for chunk in output.chunk(parts):
            costs = {"loss": chunk.square().mean(), "mel": chunk.abs().sum(1).exp().mean()}
            pulls.append(measure(Sample(chunk), costs, shares, torch.float64))
        return torch.autograd.grad(sum(cost / parts for cost in balanced_costs(players(), pulls, shares)), output)[0]

    torch.testing.assert_close(at(2), at(1))


def test_costs_without_a_share_keep_their_own_gradient() -> None:
    output = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    costs = {**costs_of(output, {"loss": 5.0, "mel": 7.0}), "likelihood": 2 * weight}
    (cost,) = balanced_costs(players(), [measure(Sample(output), costs, {"loss": 1.0}, torch.float64)], {"loss": 1.0})
    at_output, at_weight = torch.autograd.grad(cost, (output, weight))
    torch.testing.assert_close(at_output, torch.tensor([[0.5, 3.5]] * 2, dtype=torch.float64))
    assert at_weight == 2


def test_a_cost_of_something_else_is_named() -> None:
    output = torch.zeros(1, 2, requires_grad=True)
    for cost in (torch.ones(()), torch.ones((), requires_grad=True) * 2):
        with pytest.raises(ConfigError, match=r"balance\.mel: this cost does not depend on the sample"):
            measure(Sample(output), {"mel": cost}, {"mel": 1.0}, torch.float32)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("balance={mel=1.0}", "expected a share of loss"),
        ("balance={loss=1.0, mel=0.0}", "share 0.0 of mel is not above 0"),
        ("balance={loss=1.0, likelihood=1.0}", "auxiliary.likelihood"),
        ("balance={loss=1.0, mle=1.0}", r"balance.mle: this plugin has no such term; known: .*mel"),
    ],
)
def test_shares_that_cannot_be_are_refused(given: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        run(tmp_path / "run", given, steps=1)


def test_an_estimator_without_a_gradient_at_the_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"take straight_through"):
        overrides = tiny("text", "estimator.name=score_function", "balance={loss=1.0}")
        advgen.train("text", out=tmp_path / "run", overrides=overrides, steps=1, progress=False, device="cpu")


def run(out: Path, *more: str, **options: Any) -> Path:
    given = [*VOCODER, *more]
    advgen.train("audio", preset="vocos-small", out=out, overrides=given, progress=False, device="cpu", **options)
    return out


def test_a_balanced_run_resumes_to_the_bit_and_keeps_its_means(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", *SHARES, "train.keep=9", steps=3)
    parts = run(tmp_path / "parts", *SHARES, "train.keep=9", steps=3, stop_after=2)
    advgen.resume(parts, progress=False, device="cpu")
    one, other = (checkpoint.load(folder / "checkpoints", 3)[0] for folder in (whole, parts))
    for part, tensors in one.items():
        assert all(torch.equal(t.nan_to_num(7.5), other[part][name].nan_to_num(7.5)) for name, t in tensors.items()), part
    kept = {name: tensor for name, tensor in one["state"].items() if name.startswith("balance.")}
    assert set(kept) == {"balance.loss", "balance.mel", "balance.feature_matching"}
    assert all(tensor[1].item() == pytest.approx(1 + DECAY + DECAY**2) and tensor[0] > 0 for tensor in kept.values())


def test_micro_batches_leave_the_weights_of_one_batch(tmp_path: Path) -> None:
    exact = ["train.precision='float64'"]
    one = run(tmp_path / "one", *SHARES, *exact, steps=2)
    two = run(tmp_path / "two", *SHARES, *exact, "train.accumulate=2", steps=2)
    alone, cut = (checkpoint.load(folder / "checkpoints", 2)[0] for folder in (one, two))
    for name, tensor in alone["generator"].items():
        assert (tensor - cut["generator"][name]).abs().max() < 1e-9, name


def test_a_text_run_is_balanced_at_its_relaxed_tokens(tmp_path: Path) -> None:
    overrides = tiny("text", "estimator.name=straight_through", "balance={loss=1.0}")
    advgen.train("text", out=tmp_path / "run", overrides=overrides, steps=2, progress=False, device="cpu")
    assert checkpoint.load(tmp_path / "run" / "checkpoints", 2)[0]["state"]["balance.loss"][0] > 0


def test_without_shares_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("measured although no share was given")

    monkeypatch.setattr(generator, "measure", never)
    monkeypatch.setattr(generator, "balanced_costs", never)
    folder = run(tmp_path / "run", steps=1)
    assert not [name for name in checkpoint.load(folder / "checkpoints", 1)[0]["state"] if name.startswith("balance")]
    row = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    assert row["generator/mel"] > 45 * 0.1  # its weight, not a share

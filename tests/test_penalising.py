"""Penalties on a share of the batch, and what D learns from the conditions of other samples."""

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
from torch import Tensor, nn

import advgen
from advgen import Batch, ConfigError, Discriminator, Head, Verdict
from advgen.losses import LOSSES
from advgen.penalties import PENALTIES
from advgen.players import Chunk
from advgen.updates.discriminator import _mismatch_cost
from advgen.updates.judging import Side, judge, judge_apart, judge_both, mixes_samples
from advgen.updates.penalising import _rows, penalty_costs

sys.path.insert(0, str(Path(__file__).parent))
from conftest import tiny

KEYS = ("r1", "r2")
LABELS = torch.tensor([0, 1, 1, 0])


class Steep(Discriminator):
    """seen (B, 1), label -> two scores: the cube of what is seen, and a logit of the label that grows with it."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(()))

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        sign = 2.0 * condition["label"] - 1
        return Verdict.of(seen[:, 0] ** 3, self.slope * sign * seen[:, 0])


def chunk(size: int, start: int = 0, **more: Any) -> Chunk:
    real = Batch(torch.zeros(size, 1), condition={"label": LABELS[:size]})
    return Chunk(real, torch.zeros(size), torch.zeros(size), lambda shape: torch.zeros(size, *shape), start, **more)


def parties(batch: int, **settings: float) -> tuple[Any, Any]:
    """Players and an objective of one penalty, or of a mismatch, as far as the functions under test look."""
    penalty = SimpleNamespace(**({"amount": 2.0, "interval": 1, "share": 1.0} | settings))
    discriminator = SimpleNamespace(mismatch=settings.get("mismatch", 0.0))
    config = SimpleNamespace(penalties={"r1": penalty}, train=SimpleNamespace(batch_size=batch), discriminator=discriminator)
    world = SimpleNamespace(size=1, device=torch.device("cpu"))
    objective = SimpleNamespace(config=config, penalties=PENALTIES, weight=lambda path, base, progress: base)
    players = SimpleNamespace(judges=Steep(), world=world, precision=torch.enable_grad, judges_apart=False)
    return players, objective


def r1_cost(players: Any, objective: Any, part: Chunk, sides: tuple[Side, Side]) -> Tensor:
    return penalty_costs(players, objective, part, sides, {"r1": PENALTIES["r1"]}, 0.0)["r1"]


@pytest.mark.parametrize(
    ("batch", "share", "places"), [(8, 0.25, [0, 4]), (6, 0.5, [0, 2, 4]), (5, 0.4, [0, 2]), (3, 0.99, [0, 1])]
)
def test_chosen_samples_are_spread_evenly_over_the_batch(batch: int, share: float, places: list[int]) -> None:
    rows, total = _rows(chunk(batch), share, batch, "r1")
    assert rows.tolist() == places and total == len(places)


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_micro_batches_choose_the_samples_of_the_whole_batch(parts: int) -> None:
    size = 8 // parts
    chosen = [start + row for start in range(0, 8, size) for row in _rows(chunk(size, start), 0.375, 8, "r1")[0].tolist()]
    assert chosen == _rows(chunk(8), 0.375, 8, "r1")[0].tolist() == [0, 2, 5]


def test_a_penalty_on_a_share_is_the_mean_over_its_samples() -> None:
    players, objective = parties(4, share=0.5)
    seen = torch.tensor([[1.0], [9.0], [2.0], [9.0]])
    cost = r1_cost(players, objective, chunk(4), (Side(seen, None),) * 2)
    # R1 with gamma 2 is the squared slope of the mean score: (3 x^2 + sign) / 2 at samples 0 and 2, of labels 0 and 1.
    assert cost.item() == pytest.approx((((3 - 1) / 2) ** 2 + ((12 + 1) / 2) ** 2) / 2)
    cost.backward()
    assert players.judges.slope.grad.abs() > 0


def test_micro_batches_without_a_chosen_sample_cost_nothing_and_the_others_make_up_for_it() -> None:
    players, objective = parties(4, share=0.25)
    seen = torch.tensor([[1.0], [2.0], [3.0], [4.0]], requires_grad=True)
    parts = [r1_cost(players, objective, chunk(2, start), (Side(seen[start : start + 2], None),) * 2) for start in (0, 2)]
    whole = r1_cost(players, objective, chunk(4), (Side(seen, None),) * 2)
    parts[1].backward()  # alone, as in an update of its own
    assert parts[1].item() == 0 and sum(part.item() for part in parts) / 2 == pytest.approx(whole.item())


def test_a_share_of_no_sample_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"penalties.r1.share=0.1 of a batch of 4 is no sample; expected 0.25 or more"):
        _rows(chunk(4), 0.1, 4, "r1")


class Counting(Discriminator):
    """Smooth scores of two heads, one of them masked, and how many passes were made."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.passes = nn.Linear(3, 5), nn.Linear(5, 1), 0

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        self.passes += 1
        hidden = torch.tanh(self.first(seen)) + condition["label"].reshape(-1, 1, 1)
        scores = self.second(hidden)[..., 0]
        return Verdict((Head(scores, mask, 0.25, (hidden,)), Head(scores.square().mean(1), None, 0.75)))


def two_sides() -> tuple[Side, Side]:
    generator = torch.Generator().manual_seed(1)
    seen = [torch.randn(4, 6, 3, generator=generator).requires_grad_() for _ in range(2)]
    masks = [torch.rand(4, 6, generator=generator) < 0.7 for _ in range(2)]
    return Side(seen[0], masks[0]), Side(seen[1], masks[1])


def test_one_pass_over_both_sides_gives_the_verdicts_and_penalties_of_two() -> None:
    found, passes = [], []
    for look in (judge_apart, judge_both):
        players, objective = parties(4)
        players.judges = critic = Counting()
        objective.config.penalties["r2"] = objective.config.penalties["r1"]
        sides = look(critic, *two_sides(), {"label": LABELS})
        due = {name: PENALTIES[name] for name in ("r1", "r2")}
        costs = penalty_costs(players, objective, chunk(4), sides, due, 0.0)
        scores = torch.cat([head.scores.flatten() for side in sides for head in side.verdict.heads])
        inner = torch.cat([side.verdict.heads[0].features[0] for side in sides])
        (scores.sum() + sum(costs.values())).backward()
        found.append([scores, inner, *costs.values(), *(parameter.grad for parameter in critic.parameters())])
        passes.append(critic.passes)
    assert passes == [2, 1]
    for apart, together in zip(*found, strict=True):
        torch.testing.assert_close(together, apart)


def test_penalties_on_a_share_look_at_one_pass_over_both_sides() -> None:
    players, objective = parties(4, share=0.5)
    players.judges = critic = Counting()
    objective.config.penalties["r2"] = objective.config.penalties["r1"]
    one = {name: penalty_costs(players, objective, chunk(4), two_sides(), {name: PENALTIES[name]}, 0.0)[name] for name in KEYS}
    apart, critic.passes = critic.passes, 0
    both = penalty_costs(players, objective, chunk(4), two_sides(), {name: PENALTIES[name] for name in KEYS}, 0.0)
    assert (apart, critic.passes) == (2, 1)
    for name in KEYS:
        torch.testing.assert_close(both[name], one[name])


def test_sides_of_other_shapes_are_judged_apart() -> None:
    critic, (real, fake) = Counting(), two_sides()
    assert fake.mask is not None
    judge_both(critic, real, Side(fake.seen[:, :5], fake.mask[:, :5]), {"label": LABELS})
    assert critic.passes == 2


def test_a_discriminator_with_batch_statistics_never_sees_real_beside_generated() -> None:
    critic = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert mixes_samples(critic) and not mixes_samples(critic[0]) and not mixes_samples(critic.eval())


@pytest.mark.parametrize(("penalties", "passes"), [("none", 2), ("{r2=false}", 3), ("{r1={weight=1.0}, r2={weight=1.0}}", 2)])
def test_a_step_judges_both_sides_in_one_pass_unless_one_slope_alone_is_asked_for(
    penalties: str, passes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = list[int]()
    monkeypatch.setattr("advgen.updates.judging.check_verdict", lambda verdict, size, who: counted.append(size) or verdict)
    overrides = tiny("image", f"penalties={penalties}", "loss='nonsaturating'", "discriminator.mismatch=0.0")
    advgen.train("image", out=tmp_path / "run", overrides=overrides, steps=1, progress=False, device="cpu")
    of_step = [size for size in counted if size <= 16]  # both sides of 8; the watch on overfitting judges 64
    assert len(of_step) == passes  # one of them is of G's update


def mismatch(other: Tensor) -> tuple[Steep, Tensor]:
    players, objective = parties(4, mismatch=3.0)
    seen, labels = torch.tensor([[1.0], [2.0], [3.0], [4.0]]), LABELS
    matched = judge(players.judges, seen, {"label": labels}, None)
    return players.judges, _mismatch_cost(players, objective, chunk(4, mismatched={"label": other}), seen, matched, 0.0)


def test_mismatch_ranks_a_sample_under_its_own_condition_above_itself_under_another() -> None:
    critic, cost = mismatch(1 - LABELS)
    # The first score ties at log 2; the second is s x under the own label and -s x under the other, s = +-1.
    margins = [2 * x * (1 if label else -1) for x, label in zip((1, 2, 3, 4), LABELS.tolist(), strict=True)]
    expected = 3 * sum(0.5 * math.log(2) + 0.5 * math.log1p(math.exp(-m)) for m in margins) / 4
    assert cost.item() == pytest.approx(expected, rel=1e-6)
    cost.backward()
    assert critic.slope.grad.abs() > 0


def test_mismatch_of_equal_conditions_is_a_tie_without_a_gradient() -> None:
    critic, cost = mismatch(LABELS)
    cost.backward()
    assert cost.item() == pytest.approx(3 * math.log(2)) and critic.slope.grad == 0


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_mismatch_teaches_the_label_under_every_loss(loss: str, tmp_path: Path) -> None:
    overrides = tiny("image", f"loss={loss}", "discriminator.mismatch=1.0", "options.generator_norm='none'")
    advgen.train("image", out=tmp_path / "run", overrides=overrides, steps=4, device="cpu", progress=False)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    costs = [row["discriminator/mismatch"] for row in rows]
    assert all(math.isfinite(cost) for cost in costs) and costs[-1] != pytest.approx(math.log(2), abs=1e-6)


def test_mismatch_costs_nothing_where_there_is_no_condition(tmp_path: Path) -> None:
    overrides = tiny("image", "discriminator.mismatch=1.0", "options.conditional=false")
    advgen.train("image", out=tmp_path / "run", overrides=overrides, steps=1, device="cpu", progress=False)
    assert "mismatch" not in (tmp_path / "run" / "metrics.jsonl").read_text()

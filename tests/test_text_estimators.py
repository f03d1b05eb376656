"""Estimators and presets of text, end to end at tiny size."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import advgen
from advgen import Batch, ConfigError, Discriminator, Sample, Verdict
from advgen.config.load import load_config
from advgen.config.model import PlayerConfig, RunConfig
from advgen.engine import make_player
from advgen.losses import LOSSES
from advgen.players import Chunk, Objective, Players
from advgen.registry import find_plugin
from advgen.runs import checkpoint
from advgen.schedules import make_scale
from advgen.setup import NOISE_ROWS, build
from advgen.updates.generator import update_generator
from advgen.world import World
from advgen_text.config import TextConfig
from advgen_text.critics import Mediator
from advgen_text.generators import Writer
from advgen_text.making import make_critic, make_generator
from advgen_text.modality import TextModality
from advgen_text.objectives import BOUNDED, COOPERATIVE
from advgen_text.tokenizer import PAD

sys.path.insert(0, str(Path(__file__).parent))
from conftest import tiny

V, L = 13, 9
FACTS = {"length": L, "classes": []}
SMALL: dict[str, Any] = {
    "generator_embedding": 8,
    "generator_hidden": 8,
    "critic_embedding": 8,
    "critic_hidden": 8,
    "memory_head_size": 6,
}
ALONE = World(0, 1, torch.device("cpu"))
EXACT = ["train.precision=float64", "options.max_length=8"]


def writer(kind: str) -> Writer:
    torch.manual_seed(0)
    made = make_generator(TextConfig(generator=kind, transformer_layers=1, transformer_heads=2, **SMALL), FACTS, V)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return made


def run(folder: Path, *more: str, steps: int = 3, **arguments: Any) -> Path:
    overrides = tiny("text", *more)
    advgen.train("text", out=folder, overrides=overrides, steps=steps, progress=False, device="cpu", **arguments)
    return folder


def preset(name: str) -> RunConfig:
    return load_config(find_plugin("text"), preset=name).config


def part(folder: Path, step: int, name: str = "generator") -> dict[str, Tensor]:
    found: dict[str, Tensor] = checkpoint.load(folder / "checkpoints", step)[0][name]
    return found


@pytest.mark.parametrize("kind", ["lstm", "relational", "transformer"])
def test_a_sample_completed_from_any_of_its_places_with_its_own_noise_is_the_sample(kind: str) -> None:
    """Only where the prefix is read from <bos> on, token by token, do the draws after it come out alike."""
    if kind == "transformer":
        pytest.importorskip("transformers")
    generator, noise = writer(kind), torch.rand(12, L, generator=torch.Generator().manual_seed(3))
    whole = generator(noise, {})
    for kept in range(L + 1):
        other = torch.rand(12, L, generator=torch.Generator().manual_seed(4))
        mixed = torch.where(torch.arange(L) < kept, other, noise)  # what stands at the prefix's places is not used
        found = generator.continue_from(whole.values, mixed, {}, kept=torch.full((12,), kept))
        assert torch.equal(found.values, whole.values), kept
        assert torch.equal(found.mask, whole.mask & (torch.arange(L) >= kept)), kept


def test_prefixes_of_different_lengths_are_kept_and_completed_side_by_side() -> None:
    generator, noise = writer("lstm"), torch.rand(8, L, generator=torch.Generator().manual_seed(3))
    whole, kept = generator(noise, {}).values, torch.arange(8)
    other = torch.rand(8, L, generator=torch.Generator().manual_seed(4))
    found = generator.continue_from(whole, other, {}, kept=kept).values
    for row in range(8):
        alone = generator.continue_from(whole[row : row + 1, :row], other[row : row + 1], {}).values
        assert torch.equal(found[row], alone[0]) and torch.equal(found[row, :row], whole[row, :row])


def test_a_mediator_scores_tokens_and_all_that_might_stand_in_their_place() -> None:
    torch.manual_seed(0)
    judge = make_critic(TextConfig(critic="mediator", **SMALL), FACTS, V)
    assert isinstance(judge, Mediator)
    tokens = torch.tensor([[5, 6, 2, PAD, PAD, PAD, PAD, PAD, PAD]])
    (head,) = judge(judge.embed(Sample(tokens)), {}, tokens != PAD).heads
    assert head.alternatives is not None and head.alternatives.shape == (1, L, V)
    torch.testing.assert_close(head.alternatives.exp().sum(2), torch.ones(1, L))
    assert torch.equal(head.scores[0, :3], head.alternatives[0, torch.arange(3), tokens[0, :3]])
    assert not judge.has_slope
    with pytest.raises(ConfigError, match="straight_through"):
        judge.embed(Sample(tokens, relaxed=torch.zeros(1, L, V)))


def test_a_mediator_starts_as_a_generator_of_its_size_and_stays_itself_beside_another() -> None:
    judge = make_critic(TextConfig(critic="mediator", **SMALL), FACTS, V)
    assert isinstance(judge, Mediator)
    judge.take(writer("relational"))
    assert type(judge.model).__name__ == "LstmWriter"
    judge.take(writer("lstm"))
    for name, value in writer("lstm").state_dict().items():
        assert torch.equal(judge.model.state_dict()[name], value)


def test_the_losses_of_the_plugin_by_hand() -> None:
    logit = torch.tensor([0.0, 3.0])
    torch.testing.assert_close(BOUNDED.generator(real=logit, fake=logit), 1 - 2 * logit.sigmoid())
    torch.testing.assert_close(BOUNDED.discriminator(real=logit, fake=-logit), 2 * torch.nn.functional.softplus(-logit))
    assert COOPERATIVE.discriminator(real=logit, fake=logit).tolist() == [0.0, -6.0]
    assert COOPERATIVE.generator(real=logit, fake=logit).tolist() == [0.0, -3.0]


PRESETS = ["seqgan", "maligan", "relgan", "scratchgan", "cot", "textgail"]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_of_a_published_algorithm_trains_and_samples(preset: str, tmp_path: Path) -> None:
    if preset == "textgail":
        pytest.importorskip("transformers")
    small = [
        "options.critic_filters=0.02",
        "options.memory_head_size=6",
        "options.transformer_layers=1",
        "discriminator.steps=1",
    ]
    folder = run(tmp_path / "run", *small, "options.max_length=6", "estimator.rollouts=2", preset=preset, steps=5)
    before, after = part(folder, 0), part(folder, 5)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    judged = part(folder, 5, "discriminator")
    assert any(not torch.equal(value, judged[name]) for name, value in part(folder, 0, "discriminator").items())
    assert all(torch.isfinite(value).all() for value in [*after.values(), *judged.values()])


def test_the_baseline_of_every_sweep_is_the_default_by_likelihood_alone() -> None:
    default, baseline = preset("default"), preset("likelihood")
    assert [phase.kind for phase in baseline.phases] == ["likelihood"]
    assert baseline.model_copy(update={"phases": default.phases}) == default == preset("cpu")


def test_relgan_follows_its_paper_in_both_phases() -> None:
    """Rates 1e-2, then 1e-4; the temperature at 1 until the adversarial phase, then by equal factors; nothing inherited."""
    settled = preset("relgan")
    scale, temperature = make_scale(settled), "estimator.temperature"
    assert [scale(temperature, progress) for progress in (0.0, 0.8, 0.9, 1.0)] == pytest.approx([1.0, 1.0, 0.4, 0.16])
    for player, rates in (("generator", (1e-2, 1e-2, 1e-4, 1e-4)), ("discriminator", (1e-4, 1e-4, 1e-4, 1e-4))):
        base = getattr(settled, player).learning_rate
        found = [base * scale(f"{player}.learning_rate", progress) for progress in (0.0, 0.79, 0.8, 1.0)]
        assert found == pytest.approx(rates)
    assert not settled.auxiliary and not settled.penalties and settled.discriminator.steps == 5


def test_the_reward_of_real_samples_falls_from_2_to_0_over_the_adversarial_phase_of_textgail() -> None:
    settled = preset("textgail")
    scale = make_scale(settled)
    found = [settled.estimator.real_reward * scale("estimator.real_reward", progress) for progress in (0.7, 0.75, 0.875, 1.0)]
    assert found == pytest.approx([2.0, 2.0, 1.0, 0.0])


ROLLOUTS = [*EXACT, "estimator.rewards=rollout", "estimator.rollouts=3", "phases=[{kind='adversarial'}]"]


def test_how_many_rollouts_are_written_at_once_changes_no_result(tmp_path: Path) -> None:
    expected, found = (
        part(run(tmp_path / str(rows), *ROLLOUTS, f"estimator.rollout_rows={rows}", steps=2), 2) for rows in (7, 512)
    )
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-10)


def test_noise_of_rollouts_is_of_their_sample_and_place_and_drawn_in_bounded_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    record, drawn, noise = find_plugin("text"), list[int](), TextModality.noise

    def counted(self: TextModality, num_samples: int, *more: Any, **options: Any) -> Tensor:
        drawn.append(num_samples)
        return noise(self, num_samples, *more, **options)

    monkeypatch.setattr(TextModality, "noise", counted)
    cuts = [f"train.accumulate={parts}" for parts in (1, 2)]
    draws = [
        build(record, load_config(record, overrides=tiny("text", *ROLLOUTS, "train.batch_size=8", cut)).config, ALONE).draw
        for cut in cuts
    ]
    (whole,), halves = (draw("generator", 5) for draw in draws)
    drawn.clear()
    found = whole.more_noise(3, torch.arange(8), 300)
    assert found.shape[:2] == (8, 300) and len(found.flatten().unique()) > 0.99 * found.numel()
    assert torch.equal(found, torch.cat([half.more_noise(3, torch.arange(4), 300) for half in halves]))
    assert torch.equal(found[[1, 6]], whole.more_noise(3, torch.tensor([1, 6]), 300))
    assert torch.isin(found, whole.more_noise(4, torch.arange(8), 300)).double().mean() < 0.01
    assert max(drawn) <= NOISE_ROWS


class Weighing(Discriminator):
    """One score a sample: the sum of a fixed weight for every token in each place."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(L, V, generator=torch.Generator().manual_seed(1)))

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        return Verdict.of((seen * self.weight).sum((1, 2)))


@pytest.mark.parametrize(("progress", "temperature"), [(0.0, 2.0), (0.5, 2.0), (0.75, 1.0), (1.0, 0.5)])
def test_the_straight_through_gradient_is_that_of_the_scheduled_temperature(progress: float, temperature: float) -> None:
    schedule = {"kind": "exponential", "end": 0.25, "since": 0.5}
    given = {"estimator": {"name": "straight_through", "temperature": 2.0}, "schedules": {"estimator.temperature": schedule}}
    config, device, critic = RunConfig(plugin="text", loss="wasserstein", **given), torch.device("cpu"), Weighing()  # type: ignore[arg-type]
    learns, alike = writer("lstm"), writer("lstm")
    players = Players(
        make_player("generator", learns, PlayerConfig(optimizer="sgd", learning_rate=1.0), device),
        make_player("discriminator", critic, PlayerConfig(), device),
        None,
        None,  # type: ignore[arg-type]  # nothing here asks the modality
        ALONE,
    )
    noise = torch.rand(4, L, V, generator=torch.Generator().manual_seed(2))
    chunk = Chunk(Batch(torch.ones(4, L, dtype=torch.int64)), noise, noise[:, 0, 0], torch.rand)
    update_generator(players, Objective(config, LOSSES["wasserstein"], {}, make_scale(config)), [chunk], 0, progress)
    sample = alike(noise, {}, mode="relaxed", temperature=temperature)
    (-critic(sample.relaxed, {}).heads[0].scores.mean()).backward()
    moved = 0.0
    for before, after in zip(alike.parameters(), learns.parameters(), strict=True):
        if before.grad is not None:
            torch.testing.assert_close(after.detach(), (before - before.grad).detach(), rtol=1e-4, atol=1e-5)
            moved += float(before.grad.abs().sum())
    assert moved > 0.01


def test_ppo_without_clipping_and_with_one_epoch_is_the_score_function(tmp_path: Path) -> None:
    same = [*EXACT, "estimator.entropy_weight=0.01", "phases=[{kind='adversarial'}]", "penalties=none", "options.dropout=0.0"]
    once = run(tmp_path / "score", *same)
    again = run(
        tmp_path / "ppo", *same, "estimator.name=ppo", "estimator.epochs=1", "estimator.clip=inf", "estimator.normalise=false"
    )
    expected, found = part(once, 3), part(again, 3)
    assert any(not torch.equal(expected[name], value) for name, value in part(once, 0).items())
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-10)


PPO = [*EXACT, "estimator={name='ppo', epochs=2, reference_weight=0.1, real_share=0.25}"]
PHASES = "phases=[{kind='likelihood', share=0.34}, {kind='critic', share=0.16}, {kind='adversarial', share=0.5}]"


def test_the_reference_is_the_generator_of_the_adversarial_phases_start_and_stays_through_a_resume(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", *PPO, PHASES, "train.checkpoint_every=1", "train.keep=9", steps=6)
    # Likelihood takes steps 0 to 2, D alone 3 (progress 0.34 is passed at step 3), both from step 3 on at the latest.
    reference = part(whole, 6, "reference")
    start = next(step for step in range(7) if all(torch.equal(part(whole, step)[name], reference[name]) for name in reference))
    assert 0 < start < 6 and any(not torch.equal(part(whole, 6)[name], reference[name]) for name in reference)
    run(tmp_path / "cut", *PPO, PHASES, steps=6, stop_after=5)
    advgen.resume(tmp_path / "cut", progress=False, device="cpu")
    for name in ("generator", "discriminator", "average", "reference"):
        for key, value in part(whole, 6, name).items():
            assert torch.equal(part(tmp_path / "cut", 6, name)[key], value), (name, key)


def test_in_a_critic_phase_only_the_critic_learns(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", "phases=[{kind='critic'}]")
    assert all(torch.equal(value, part(folder, 3)[name]) for name, value in part(folder, 0).items())
    judged = part(folder, 3, "discriminator")
    assert any(not torch.equal(value, judged[name]) for name, value in part(folder, 0, "discriminator").items())


def test_a_critic_and_an_adversarial_phase_in_a_row_are_entered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from advgen_text.modality import TextModality

    told: list[str] = []
    monkeypatch.setattr(TextModality, "enter_phase", lambda self, kind, *networks: told.append(kind))
    run(tmp_path / "run", PHASES, steps=12)
    assert told == ["critic"]


def test_a_critic_that_scores_no_alternatives_is_refused_for_the_expectation(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="critic=mediator"):
        run(
            tmp_path / "run",
            "estimator.name=expectation",
            "loss=nonsaturating",
            "penalties=none",
            "phases=[{kind='adversarial'}]",
        )


def test_saved_and_loaded_a_policy_writes_the_text_that_it_wrote_in_training(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", *PPO, "phases=[{kind='adversarial'}]")
    loaded = advgen.load_generator(folder, device="cpu")
    drawn = loaded.draw(64, seed=0)
    (table,) = (folder / "samples").glob("step-00000003*")
    (again,) = loaded.modality.overview(drawn, tmp_path / "again")
    assert again.read_text() == table.read_text() and len(table.read_text().splitlines()) == 64
    assert len({row["text"] for row in loaded.modality.rows(drawn)}) > 30

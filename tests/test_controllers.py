"""LeCam, path length, updates of their own, the burn-in, automatic weights: values by hand, memory, resuming, refusals."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import advgen
from advgen import ConfigError, Corpus, DataRequest
from advgen.config.load import load_config
from advgen.config.model import PlayerConfig, RunConfig
from advgen.controllers import LECAM_START, follow_lengths, follow_scores, lecam, lecam_cost, path_length_cost
from advgen.engine import corrected
from advgen.registry import find_plugin
from advgen.runs import checkpoint
from advgen.schedules import make_scale
from advgen.setup import Setup, build
from advgen.step import train_step
from advgen.world import World
from advgen_image.config import ImageConfig
from advgen_image.modality import ImageModality

ALONE = World(0, 1, torch.device("cpu"))
TINY = ["options.width=4", "options.noise_size=8", "train.batch_size=8", "train.log_every=1"]
STYLED = [*TINY, "options.family=stylegan2", "options.doublings=1", "options.minibatch_group=4", "penalties.r2=false"]
LAZY = ["penalties.r1={weight=1.0, interval=2, own_step=true}", "penalties.path_length={weight=2.0, interval=2, own_step=true}"]


@functools.cache
def corpus() -> Corpus:
    return ImageModality.read(ImageConfig(), DataRequest(None))


@pytest.fixture(autouse=True)
def _corpus_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = corpus()
    monkeypatch.setattr(ImageModality, "read", classmethod(lambda cls, config, request: found))


def made(*overrides: str) -> Setup:
    record = find_plugin("image")
    return build(record, load_config(record, overrides=[*TINY, *overrides]).config, ALONE)


def run(out: Path, overrides: list[str], **more: Any) -> dict[str, dict[str, Tensor]]:
    advgen.train("image", out=out, overrides=overrides, steps=4, progress=False, device="cpu", **more)
    if more:
        advgen.resume(out, progress=False, device="cpu")
    return checkpoint.load(out / "checkpoints", 4)[0]


# LeCam


def test_lecam_is_zero_while_sides_keep_to_their_side_and_grows_with_the_square() -> None:
    means = {"real_mean": torch.tensor(1.0), "fake_mean": torch.tensor(-1.0)}
    cost = lecam(real=torch.tensor([-2.0, -1.0, 1.0]), fake=torch.tensor([2.0, 1.0, -1.0]), weight=0.5, **means)
    assert cost.tolist() == [0.0, 0.0, 0.5 * (4.0 + 4.0)]


def test_lecam_waits_and_follows_global_means() -> None:
    state: dict[str, Tensor] = {}
    real, fake = torch.full((4,), 2.0), torch.full((4,), -2.0)
    for _ in range(LECAM_START):
        assert lecam_cost(state, real, fake, 1.0) == 0
        follow_scores(state, real, fake)
    follow_scores(state, real + 100, fake)
    assert state["lecam"][0] == pytest.approx(3.0) and state["lecam"][1] == pytest.approx(-2.0)
    assert lecam_cost(state, real, fake, 1.0) == pytest.approx(4.0**2 + 5.0**2)


# Path length


def test_path_length_target_follows_the_mean_length() -> None:
    state: dict[str, Tensor] = {}
    lengths = torch.tensor([1.0, 3.0])
    assert path_length_cost(state, lengths, 2.0) == pytest.approx(2 * (1 + 9) / 2)  # the target starts at 0, as published
    for _ in range(800):
        follow_lengths(state, lengths, ALONE)
    assert float(state["path_length"]) == pytest.approx(2.0, abs=1e-3)
    assert path_length_cost(state, lengths, 2.0) == pytest.approx(2.0, rel=0.01)


def test_path_length_without_a_latent_is_refused_with_networks_that_have_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the generator has no latent.*preset stylegan2.*gen plugins show"):
        run(tmp_path / "run", [*TINY, "penalties.path_length.weight=2"])


# Updates of their own


def test_correction_is_the_published_one() -> None:
    settings = corrected(PlayerConfig(learning_rate=0.0025, betas=(0.0, 0.99)), 16)
    assert settings.learning_rate == pytest.approx(0.0025 * 16 / 17)
    assert settings.betas == (0.0, pytest.approx(0.99 ** (16 / 17)))


def test_own_step_makes_further_updates_and_only_those_are_corrected_for() -> None:
    setup = made(*STYLED, *LAZY)
    for step in range(4):
        logs = train_step(setup.players, setup.objective, setup.draw, step, 0.0)
        assert ("discriminator/r1" in logs) == ("generator/path_length" in logs) == (step % 2 == 0)
    assert setup.players.discriminator.num_updates == setup.players.generator.num_updates == 6
    assert setup.players.discriminator.settings.learning_rate == pytest.approx(setup.config.discriminator.learning_rate * 2 / 3)
    joined = made("penalties.r1.interval=2")
    assert joined.players.discriminator.settings == joined.config.discriminator


def test_lazy_penalties_mixing_noise_and_path_length_resume_exactly(tmp_path: Path) -> None:
    overrides = [*STYLED, *LAZY]
    whole, cut = run(tmp_path / "whole", overrides), run(tmp_path / "cut", overrides, stop_after=3)
    assert float(whole["state"]["path_length"]) > 0
    for part in ("generator", "discriminator", "average", "generator_optimizer"):
        assert all(torch.equal(value, cut[part][name]) for name, value in whole[part].items())
    assert torch.equal(whole["state"]["path_length"], cut["state"]["path_length"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["penalties.r1={interval=2, own_step=true}", "penalties.r2={interval=4, own_step=true}"], r"need one interval; got"),
        (["penalties.lecam={own_step=true}"], r"leave own_step out"),
        (["penalties.r3.weight=1"], r"unknown; .*r1"),
    ],
)
def test_penalties_that_cannot_work_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made(*overrides)


# The burn-in


def config(**more: Any) -> RunConfig:
    players = {"generator": {"betas": (0.0, 0.99)}, "discriminator": {"betas": (0.0, 0.99)}}
    return RunConfig(plugin="x", penalties={"r1": {}, "wgan_gp": {}}, **(players | more))  # type: ignore[arg-type]


def test_burn_in_drives_every_scalar_along_the_published_cosine() -> None:
    scale = make_scale(config(schedules={"burn_in": {"until": 0.5}}))
    half = 0.5 * (1 + math.cos(math.pi / 2))
    ends = {"generator.learning_rate": (1, 0.25), "discriminator.learning_rate": (1, 0.25), "penalties.r1.weight": (1, 0.1)}
    ends |= {"average.half_life_steps": (0, 1), "discriminator.augmentation": (0, 1), "penalties.wgan_gp.weight": (1, 1)}
    for path, (start, end) in ends.items():
        course = [scale(path, progress) for progress in (0.0, 0.25, 0.5, 1.0)]
        assert course == pytest.approx([start, start + half * (end - start), end, end]), path
    betas = [0.99 * scale("generator.beta2", progress) for progress in (0.0, 0.25, 0.5)]
    assert betas == pytest.approx([0.9, 0.945, 0.99])


@pytest.mark.parametrize(
    ("kind", "quarter"),
    [("linear", 0.7525), ("cosine", 1 - 0.99 * (1 - math.cos(math.pi / 4)) / 2), ("exponential", 0.01**0.25)],
)
def test_a_schedule_holds_its_start_before_since_and_its_end_from_until_on(kind: str, quarter: float) -> None:
    given = {"kind": kind, "start": 1.0, "end": 0.01, "since": 0.4, "until": 0.8}
    scale = make_scale(config(schedules={"generator.learning_rate": given}))
    values = [scale("generator.learning_rate", progress) for progress in (0.0, 0.4, 0.5, 0.8, 1.0)]
    assert values == pytest.approx([1.0, 1.0, quarter, 0.01, 0.01])


def test_a_schedule_from_where_it_ends_is_a_step() -> None:
    scale = make_scale(config(schedules={"generator.learning_rate": {"end": 0.1, "since": 0.8, "until": 0.8}}))
    assert [scale("generator.learning_rate", progress) for progress in (0.79, 0.8, 0.81)] == [1.0, 0.1, 0.1]


@pytest.mark.parametrize(
    ("given", "message"),
    [({"since": 0.5, "until": 0.4}, "since=0.5 comes after until=0.4"), ({"kind": "exponential"}, "start and end lie above 0")],
)
def test_a_schedule_that_cannot_be_followed_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(schedules={"generator.learning_rate": given})


def test_a_schedule_of_one_scalar_wins_over_the_burn_in() -> None:
    scale = make_scale(config(schedules={"burn_in": {"until": 0.5}, "generator.learning_rate": {"kind": "constant"}}))
    assert scale("generator.learning_rate", 0.9) == 1.0 and scale("discriminator.learning_rate", 0.9) == 0.25


def test_burn_in_with_ends_of_its_own_is_refused() -> None:
    with pytest.raises(ConfigError, match="burn_in has kind and until alone"):
        make_scale(config(schedules={"burn_in": {"end": 0.5}}))


def test_burn_in_reaches_the_optimizer_the_average_and_the_augmentation() -> None:
    names = ["generator.learning_rate", "discriminator.learning_rate"]
    setup = made("schedules.burn_in.until=1.0", *(f'schedules."{name}"=false' for name in names), "options.augment=diffaugment")
    train_step(setup.players, setup.objective, setup.draw, 0, 0.0)
    group = setup.players.generator.optimizer.param_groups[0]
    assert group["betas"][1] == pytest.approx(0.9) and setup.players.judges.augmentation_scale == 0.0
    average = setup.players.average
    assert average is not None  # without a half-life the average is the generator itself
    pairs = zip(average.parameters(), setup.players.generates.parameters(), strict=True)
    assert all(torch.equal(mean, now) for mean, now in pairs)
    train_step(setup.players, setup.objective, setup.draw, 1, 1.0)
    assert group["betas"][1] == pytest.approx(0.99) and setup.players.judges.augmentation_scale == 1.0
    assert group["lr"] == pytest.approx(setup.config.generator.learning_rate / 4)


# Automatic weights


def test_automatic_gamma_follows_pixels_and_batch_and_is_told() -> None:
    setup = made("penalties.r1.weight=auto")
    assert setup.config.penalties["r1"].weight == pytest.approx(0.0002 * 32 * 32 / 8)
    assert setup.notes == ("penalties.r1.weight: auto is 0.0256 here, with batches of 8",)
    assert setup.objective.config is setup.config


def test_automatic_weight_without_a_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"penalties.wgan_gp.weight = auto: .* has no rule"):
        made("penalties.wgan_gp.weight=auto")

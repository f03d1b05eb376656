"""Schedules: a multiplier over the plan's progress for any scalar of the configuration."""

from __future__ import annotations

import math
from collections.abc import Callable

from advgen.config.model import RunConfig, ScheduleConfig
from advgen.errors import ConfigError, nearest

BURN_IN = "burn_in"
FIRST_BETA2 = 0.9
LAST_LEARNING_RATE, LAST_PENALTY = 0.25, 0.1


def burn_in(config: RunConfig) -> dict[str, ScheduleConfig]:
    """The schedules that the name ``burn_in`` stands for: from a cautious start to the configured values.

    Learning rates fall to a quarter and gradient penalties to a tenth; the second beta of Adam rises from 0.9, the average's
    half-life and the augmentation from 0.

    Raises:
        ConfigError: where start or end are given, which each of its scalars has of its own.

    Source: Huang et al. 2024 (R3GAN), https://arxiv.org/abs/2501.05441
    """
    given = config.schedules[BURN_IN]
    if (given.start, given.end) != (1.0, 0.0):
        raise ConfigError(f"schedules.{BURN_IN} has kind and until alone; give start and end to the schedule of one scalar")
    ends = {f"{player}.learning_rate": (1.0, LAST_LEARNING_RATE) for player in ("generator", "discriminator")}
    ends |= {f"penalties.{name}.weight": (1.0, LAST_PENALTY) for name in config.penalties if name in ("r1", "r2")}
    for player, settings in (("generator", config.generator), ("discriminator", config.discriminator)):
        ends[f"{player}.beta2"] = (min(FIRST_BETA2 / max(settings.betas[1], FIRST_BETA2), 1.0), 1.0)
    ends |= dict.fromkeys(("average.half_life_steps", "discriminator.augmentation"), (0.0, 1.0))
    return {path: given.model_copy(update={"start": start, "end": end}) for path, (start, end) in ends.items()}


def schedulable(config: RunConfig) -> list[str]:
    """Paths of the scalars that schedules may drive."""
    return [
        "generator.learning_rate",
        "discriminator.learning_rate",
        "generator.beta2",
        "discriminator.beta2",
        "discriminator.augmentation",
        "average.half_life_steps",
        "discriminator.mismatch",
        "estimator.temperature",
        "estimator.reference_weight",
        "estimator.real_reward",
        *(f"penalties.{name}.weight" for name in config.penalties),
        *(f"auxiliary.{name}" for name in config.auxiliary if name not in config.balance),
        *(f"balance.{name}" for name in config.balance),
    ]


def multiplier(schedule: ScheduleConfig, progress: float) -> float:
    """Value at ``progress`` in [0, 1]; the start value holds before ``since``, the end value from ``until`` on."""
    if schedule.kind == "constant" or progress < schedule.since:
        return schedule.start
    if progress >= schedule.until:
        return schedule.end
    share = (progress - schedule.since) / (schedule.until - schedule.since)
    if schedule.kind == "exponential":
        return float(schedule.start * (schedule.end / schedule.start) ** share)
    if schedule.kind == "cosine":
        share = (1.0 - math.cos(math.pi * share)) / 2.0
    return schedule.start + share * (schedule.end - schedule.start)


def schedules_of(config: RunConfig) -> dict[str, ScheduleConfig]:
    """The schedule of each scheduled scalar, by its path.

    Raises:
        ConfigError: for a path that no schedule can drive.
    """
    known = schedulable(config)
    named = {path: schedule for path, schedule in config.schedules.items() if path != BURN_IN}
    for path in named:
        if path not in known:
            raise ConfigError(f"schedules.{path!r}: no such scalar; {nearest(path, [*known, BURN_IN])}")
    return (burn_in(config) if BURN_IN in config.schedules else {}) | named


def make_scale(config: RunConfig) -> Callable[[str, float], float]:
    """path, progress -> multiplier; 1 where nothing is scheduled. Raises as ``schedules_of``."""
    schedules = schedules_of(config)
    return lambda path, progress: multiplier(schedules[path], progress) if path in schedules else 1.0

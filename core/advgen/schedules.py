"""Schedules: a multiplier over the plan's progress for any scalar of the configuration."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from advgen.config.model import RunConfig, ScheduleConfig
from advgen.errors import ConfigError, nearest


def schedulable(config: RunConfig) -> list[str]:
    """Paths of the scalars that schedules may drive."""
    return [
        "generator.learning_rate",
        "discriminator.learning_rate",
        "estimator.temperature",
        *(f"penalties.{name}.weight" for name in config.penalties),
        *(f"auxiliary.{name}" for name in config.auxiliary if name not in config.balance),
        *(f"balance.{name}" for name in config.balance),
    ]


def multiplier(schedule: ScheduleConfig, progress: float) -> float:
    """Value at ``progress`` in [0, 1]; the end value holds after ``until``."""
    share = min(max(progress / schedule.until, 0.0), 1.0)
    if schedule.kind == "constant":
        return schedule.start
    if schedule.kind == "cosine":
        share = (1.0 - math.cos(math.pi * share)) / 2.0
    return schedule.start + share * (schedule.end - schedule.start)


def make_scale(config: RunConfig) -> Callable[[str, float], float]:
    """path, progress -> multiplier; 1 where nothing is scheduled.

    Raises:
        ConfigError: for a path that no schedule can drive.
    """
    known = schedulable(config)
    for path in config.schedules:
        if path not in known:
            raise ConfigError(f"schedules.{path!r}: no such scalar; {nearest(path, known)}")
    schedules: Mapping[str, ScheduleConfig] = config.schedules
    return lambda path, progress: multiplier(schedules[path], progress) if path in schedules else 1.0

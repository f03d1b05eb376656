"""Penalties within an update of D: which are due, on which samples of the batch, and how strong.

Legend: B samples of a micro-batch, b of those that a penalty is measured on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from advgen.errors import ConfigError
from advgen.penalties import Penalty
from advgen.players import Chunk, Objective, Players
from advgen.updates.judging import Judge, Side, judge_both
from advgen.world import World

KEYS = ("real", "fake")


@dataclass(frozen=True)
class Measured:
    """The samples of a micro-batch that penalties are measured on.

    Args:
        sides: what D saw of them.
        condition: theirs.
        mixing: theirs, (b,).
        rows: which samples of the micro-batch, (b,) int64; None for all.
        part: what their mean is multiplied by, because the caller takes the mean over micro-batches, which may hold more or
            fewer of the chosen samples.
    """

    sides: tuple[Side, Side]
    condition: Mapping[str, Tensor]
    mixing: Tensor
    rows: Tensor | None = None
    part: float = 1.0


def due_penalties(objective: Objective, update: int, own_step: bool = False) -> dict[str, Penalty]:
    """The penalties of this update: those inside D's update, or those that take one of their own."""
    return {name: each for name, each in objective.penalties.items() if is_due(objective, name, update, own_step)}


def is_due(objective: Objective, name: str, update: int, own_step: bool = False) -> bool:
    """Whether the penalty of that name is on, due at this update, and inside it or not."""
    settings = objective.config.penalties.get(name)
    if settings is None or settings.amount == 0:
        return False
    return settings.own_step == own_step and update % settings.interval == 0


def penalty_weight(objective: Objective, name: str, progress: float) -> float:
    """A lazy penalty is k times as strong every k-th update."""
    settings = objective.config.penalties[name]
    return objective.weight(f"penalties.{name}.weight", settings.amount * settings.interval, progress)


def one_sided(due: Mapping[str, Penalty]) -> bool:
    """Whether they look at real samples alone, or at generated ones alone: a slope at both would be half in vain."""
    return {penalty.needs for penalty in due.values()} in ({"real"}, {"fake"})


def penalty_costs(
    players: Players,
    objective: Objective,
    chunk: Chunk,
    sides: tuple[Side, Side],
    due: Mapping[str, Penalty],
    progress: float,
) -> dict[str, Tensor]:
    """Named scalar costs of penalties of real and generated samples of one micro-batch.

    Where one is measured on a share of the batch, those samples are chosen by their place in the global batch, so that ranks
    and micro-batches choose the same ones. Penalties of the same share look at the same pass of D.
    """
    shares, measured, costs = dict[float, dict[str, Penalty]](), dict[float, Measured](), dict[str, Tensor]()
    for name, penalty in due.items():
        shares.setdefault(objective.config.penalties[name].share, {})[name] = penalty
    for share, group in shares.items():
        measured[share] = _judged(players, _measured(players, objective, chunk, sides, share, next(iter(group))), group)
    for name, penalty in due.items():
        weight = penalty_weight(objective, name, progress)
        # The whole batch's, on every rank: also where none of the chosen samples is.
        move = _move(chunk, sides[0].seen, players.world) if penalty.couples_batch else None
        costs[name] = _cost(players, measured[objective.config.penalties[name].share], penalty, weight, move)
    return costs


def _cost(players: Players, measured: Measured, penalty: Penalty, weight: float, move: Tensor | None) -> Tensor:
    real = measured.sides[0]
    if not len(real.seen):
        return real.seen.sum()  # 0 that can be differentiated: it may be the only cost of an update of its own
    given: dict[str, Any] = {key: side.seen for key, side in zip(KEYS, measured.sides, strict=True)}
    for key, side in zip(KEYS, measured.sides, strict=True):
        given[f"judge_{key}"] = Judge(players.judges, measured.condition, side)
    if move is not None:
        given["move"] = move if measured.rows is None else move[measured.rows]
    cost = penalty.compute(**given, noise=measured.mixing, weight=weight).mean()
    return cost if measured.part == 1 else cost * measured.part


def _measured(
    players: Players, objective: Objective, chunk: Chunk, sides: tuple[Side, Side], share: float, name: str
) -> Measured:
    """All samples, or the chosen ones of a share."""
    if share == 1:
        return Measured(sides, chunk.real.condition, chunk.mixing)
    batch_size = objective.config.train.batch_size
    rows, total = _rows(chunk, share, batch_size, name)
    condition = {key: value[rows] for key, value in chunk.real.condition.items()}
    part = batch_size * len(rows) / (len(chunk.real) * total)
    return Measured((_chosen(sides[0], rows), _chosen(sides[1], rows)), condition, chunk.mixing[rows], rows, part)


def _judged(players: Players, measured: Measured, group: Mapping[str, Penalty]) -> Measured:
    """With D's verdicts from one pass over both sides, in full precision, where penalties of the group look at both."""
    real, fake = measured.sides
    alone = {"real", "fake"} - {penalty.needs for penalty in group.values()}
    if real.verdict is not None or players.judges_apart or alone or not len(real.seen):
        return measured
    return replace(measured, sides=judge_both(players.judges, real, fake, measured.condition))


def _rows(chunk: Chunk, share: float, batch_size: int, name: str) -> tuple[Tensor, int]:
    """Which samples of the micro-batch, (b,) int64, and how many of the whole batch: evenly spread over it."""
    total = int(batch_size * share + 1e-6)
    if not total:
        raise ConfigError(
            f"penalties.{name}.share={share} of a batch of {batch_size} is no sample; expected {1 / batch_size:.3g} or more"
        )
    return _places(chunk.start, len(chunk.real), total, batch_size, chunk.mixing.device), total


@cache  # recordings read them
def _places(start: int, size: int, total: int, batch_size: int, device: torch.device) -> Tensor:
    """Of ``total`` samples of the batch those among ``size`` from ``start`` on; only the first copy waits for the device."""
    places = torch.arange(total) * batch_size // total - start
    return places[(places >= 0) & (places < size)].to(device)


def _chosen(side: Side, rows: Tensor) -> Side:
    seen = side.seen[rows]
    return Side(seen if seen.requires_grad else seen.requires_grad_(), None if side.mask is None else side.mask[rows])


def _move(chunk: Chunk, seen: Tensor, world: World) -> Tensor:
    """How far each value of real samples moves, (B, ...): uniform up to half the global batch's standard deviation."""
    values, count = seen.detach().double(), seen.numel() * world.size
    mean = world.total(values.sum()) / count
    deviation = (world.total((values - mean).square().sum()) / count).sqrt()
    return (0.5 * deviation * chunk.uniform(tuple(seen.shape[1:]))).to(seen.dtype)

"""Penalties within an update of D: which are due, on which samples of the batch, and how strong.

Legend: B samples of a micro-batch, b of those that a penalty is measured on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from advgen.contracts import Discriminator, Verdict, check_verdict
from advgen.errors import ConfigError
from advgen.penalties import Penalty
from advgen.players import Chunk, Objective, Players
from advgen.world import World

KEYS = ("real", "fake")


@dataclass(frozen=True)
class Side:
    """What D saw of real or of generated samples.

    Args:
        seen: (B, ...).
        mask: (B, *positions) bool, or None.
        verdict: what the loss has already made of it, in full precision; None where it must be made again.
    """

    seen: Tensor
    mask: Tensor | None
    verdict: Verdict | None


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
    return objective.weight(f"penalties.{name}.weight", settings.amount, progress) * settings.interval


def penalty_cost(
    players: Players, objective: Objective, chunk: Chunk, sides: tuple[Side, Side], name: str, progress: float
) -> Tensor:
    """One penalty of real and generated samples, a scalar.

    Where it is measured on a share of the batch, those samples are chosen by their place in the global batch, so that ranks
    and micro-batches choose the same ones.
    """
    settings, penalty = objective.config.penalties[name], objective.penalties[name]
    weight = penalty_weight(objective, name, progress)
    condition, mixing, parts = chunk.real.condition, chunk.mixing, 1.0
    move = _move(chunk, sides[0].seen, players.world) if penalty.couples_batch else None
    if settings.share < 1:
        rows, total = _rows(chunk, settings.share, objective.config.train.batch_size, name)
        if not len(rows):
            return sides[0].seen[:0].sum()  # 0 that can be differentiated: it may be the only cost of an update of its own
        rows = rows.to(players.world.device, non_blocking=True)
        condition, mixing = {key: value[rows] for key, value in condition.items()}, mixing[rows]
        sides, move = (_chosen(sides[0], rows), _chosen(sides[1], rows)), None if move is None else move[rows]
        # The caller takes the mean over micro-batches, which may hold more or fewer of the chosen samples.
        parts = objective.config.train.batch_size * len(rows) / (len(chunk.real) * total)
    judges = {f"judge_{key}": _rejudge(players.judges, condition, side) for key, side in zip(KEYS, sides, strict=True)}
    given: dict[str, Any] = {key: side.seen for key, side in zip(KEYS, sides, strict=True)} | judges
    given |= {} if move is None else {"move": move}
    cost = penalty.compute(**given, noise=mixing, weight=weight).mean()
    return cost if parts == 1 else cost * parts


def _rows(chunk: Chunk, share: float, batch_size: int, name: str) -> tuple[Tensor, int]:
    """Which samples of the micro-batch, (b,) int64, and how many of the whole batch: evenly spread over it."""
    total = int(batch_size * share + 1e-6)
    if not total:
        raise ConfigError(
            f"penalties.{name}.share={share} of a batch of {batch_size} is no sample; expected {1 / batch_size:.3g} or more"
        )
    places = torch.arange(total) * batch_size // total - chunk.start
    return places[(places >= 0) & (places < len(chunk.real))], total


def _chosen(side: Side, rows: Tensor) -> Side:
    seen = side.seen[rows]
    return Side(seen if seen.requires_grad else seen.requires_grad_(), None if side.mask is None else side.mask[rows], None)


def judge(critic: Discriminator, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None) -> Verdict:
    """D's verdict, checked."""
    return check_verdict(critic(seen, condition, mask), seen.shape[0], f"discriminator {type(critic).__name__}")


def _rejudge(critic: Discriminator, condition: Mapping[str, Tensor], side: Side) -> Callable[[Tensor], Verdict]:
    """D as a function of what it sees; the verdict that the loss already has is not computed again."""

    def again(seen: Tensor) -> Verdict:
        if side.verdict is not None and seen is side.seen:
            return side.verdict
        return judge(critic, seen, condition, side.mask)

    return again


def _move(chunk: Chunk, seen: Tensor, world: World) -> Tensor:
    """How far each value of real samples moves, (B, ...): uniform up to half the global batch's standard deviation."""
    values, count = seen.detach().double(), seen.numel() * world.size
    mean = world.total(values.sum()) / count
    deviation = (world.total((values - mean).square().sum()) / count).sqrt()
    return (0.5 * deviation * chunk.uniform(tuple(seen.shape[1:]))).to(seen.dtype)

"""What the updates of both players share: their gradients, their logs, the draws' temperature, means over ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from advgen import reduction
from advgen.contracts import Batch, Generator, Mode, Verdict
from advgen.engine import Player, Terms, apply_update
from advgen.estimators import update_baseline
from advgen.losses import Loss
from advgen.players import Chunk, Objective, Players
from advgen.world import World


def likelihood_cost(players: Players, real: Batch, positions: Tensor) -> Tensor:
    """Mean negative log-likelihood in nats a position, a scalar.

    Every position counts alike: a mean within each sample first would favour what short samples hold, their end above all.
    """
    nats = players.modality.likelihood(players.generates, real)
    if real.mask is None:
        return nats.mean()
    return torch.where(real.mask, nats, torch.zeros_like(nats)).sum() / (len(real) * positions)


def likelihood_gradients(players: Players, chunks: list[Chunk]) -> Terms:
    """Gradients of G's likelihood cost over all micro-batches."""
    terms, positions = Terms(), mean_positions(players.world, chunks)
    for chunk in chunks:
        with players.precision():
            cost = likelihood_cost(players, chunk.real, positions)
        backward(players, players.generator, terms, {"likelihood": cost}, len(chunks))
    return terms


def mean_positions(world: World, chunks: list[Chunk]) -> Tensor:
    """Valid positions of a mean real sample over all micro-batches and ranks, a scalar; all of them without a mask."""
    masks = [chunk.real.mask for chunk in chunks if chunk.real.mask is not None]
    if not masks:
        return torch.full((), float(chunks[0].real.values[0].numel()), device=world.device)
    valid = torch.stack([mask.sum() for mask in masks]).sum()
    return (world.total(valid) / (world.size * sum(map(len, masks)))).clamp(min=1)


def backward(players: Players, player: Player, terms: Terms, costs: dict[str, Tensor], chunks: int) -> None:
    """Gradients of one of ``chunks`` micro-batches' costs for the player's parameters, added to the update's.

    Nothing else gets one: while a penalty is on, what D sees requires gradients too, and its own would be thrown away.
    """
    total = torch.stack([cost.to(players.dtype) for cost in costs.values()]).sum()
    (total if chunks == 1 else total / chunks).backward(inputs=player.parameters)
    for name, cost in costs.items():
        add(terms.costs, name, cost, chunks)


def apply_own(players: Players, player: Player, terms: Terms, scale: float) -> dict[str, Tensor]:
    """Apply an update of penalties alone; its gradient norm is not the one that is logged."""
    name = f"{player.name}/non_finite"
    return {name: apply_update(player, terms, scale, players.world)[name]}


def global_means(loss: Loss, real: Verdict, fake: Verdict, world: World) -> list[tuple[Tensor, Tensor]] | None:
    """Each head's mean score of real and of fake over all ranks, where the loss couples the batch."""
    if not loss.couples_batch:
        return None
    pairs = zip(reduction.head_means(real), reduction.head_means(fake), strict=True)
    return [
        (world.total(real_sum) / world.total(real_count), world.total(fake_sum) / world.total(fake_count))
        for (real_sum, real_count), (fake_sum, fake_count) in pairs
    ]


@torch.no_grad()
def follow_draws(players: Players, chunks: list[Chunk]) -> None:
    """Let G see what the whole global batch was made from, where it follows something of that."""
    if type(players.generates).follow is Generator.follow:
        return
    conditions = [chunk.real.condition for chunk in chunks]
    noise = players.world.gather(torch.cat([chunk.noise for chunk in chunks]))
    condition = {name: players.world.gather(torch.cat([each[name] for each in conditions])) for name in conditions[0]}
    players.generates.follow(noise, condition)


def draw_temperature(players: Players, objective: Objective, mode: Mode, progress: float) -> float:
    """Of the generator's draws. Under straight_through it softens the gradient alone: tokens come as they are sampled later.

    Where it is scheduled and updates are recorded it is a scalar tensor from the first on: a GPU divides by a number otherwise.
    """
    if mode == "values" and objective.config.estimator.name == "straight_through":
        return 1.0
    path, base = "estimator.temperature", objective.config.estimator.temperature
    value: float | Tensor = objective.weight(path, base, progress)
    if players.recorder is not None and path in objective.config.schedules and not isinstance(value, Tensor):
        value = torch.full((), value, dtype=players.dtype, device=players.world.device)
    return value  # type: ignore[return-value]


def add(into: dict[str, Tensor], name: str, value: Tensor, chunks: int) -> None:
    part = value.detach() if chunks == 1 else value.detach() / chunks
    into[name] = into[name] + part if name in into else part


def known_baseline(players: Players, length: int) -> Tensor:
    """The mean reward of each position so far, (L,); NaN where none was seen."""
    baseline = players.state.setdefault("baseline", torch.zeros(length, dtype=players.dtype, device=players.world.device))
    updates = players.state.setdefault("baseline_updates", torch.zeros_like(baseline, dtype=torch.int64))
    return torch.where(updates > 0, baseline, torch.nan)


def follow_baseline(players: Players, objective: Objective, gains: list[tuple[Tensor, Tensor]]) -> None:
    """Move the mean reward of each position towards that of the global batch: rewards (B, L) and masks by micro-batch."""
    if not gains:
        return
    gained = players.world.gather(torch.cat([each for each, _ in gains]))
    mask = players.world.gather(torch.cat([each for _, each in gains]))
    state, decay = players.state, objective.config.estimator.baseline_decay
    moved = update_baseline(state["baseline"], gained, mask, decay, state["baseline_updates"])
    finite = moved.isfinite()  # an update that is not finite is not applied
    state["baseline"] = torch.where(finite, moved, state["baseline"])
    state["baseline_updates"] = state["baseline_updates"] + (mask.any(0) & finite)

"""Updates of G by clipped policy gradients: draw once, credit once, then several updates over the same samples.

Legend: B samples of a micro-batch, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from advgen.engine import Terms, apply_update
from advgen.estimators import advantages, gains, zero_outside
from advgen.players import Chunk, Objective, Players, Turn
from advgen.randomness import seed_networks
from advgen.recording import Update, Worked, recorded
from advgen.updates.crediting import credited_cost, drawn_places, opinion_of
from advgen.updates.generator import generated
from advgen.updates.policies import chosen, clipped_cost, divergence, entropies
from advgen.updates.shared import (
    add,
    backward,
    draw_temperature,
    follow_baseline,
    known_baseline,
    likelihood_cost,
    mean_positions,
)

IMPOSSIBLE = -1e4
"""Nats below which a token cannot have been drawn; data hold such."""
SMALLEST_SPREAD = 1e-4
"""Of advantages: smaller ones are rounding, which must not be blown up."""


@dataclass(frozen=True)
class Played:
    """The samples of one micro-batch, and what the updates over them need.

    Args:
        chunk: where they come from.
        values: (B, L) tokens; some samples may be real ones.
        mask: (B, L) bool, the tokens that count.
        is_real: (B, 1) bool.
        drawn_at: (B, L) log-probability of each token when it was drawn.
        entropy: (B, L) of each draw then.
        advantage: (B, L).
    """

    chunk: Chunk
    values: Tensor
    mask: Tensor
    is_real: Tensor
    drawn_at: Tensor
    entropy: Tensor
    advantage: Tensor

    def tensors(self) -> list[Tensor]:
        """All but the micro-batch, in the order of the fields."""
        return [self.values, self.mask, self.is_real, self.drawn_at, self.entropy, self.advantage]


def update_policy(
    players: Players, objective: Objective, chunks: list[Chunk], update: int, progress: float
) -> dict[str, Tensor]:
    """Several updates of G over one draw; D is untouched.

    Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347; with a share of real samples, Wu et al. 2021 (TextGAIL),
    https://arxiv.org/abs/2004.13796
    """
    settings, seed, logs = objective.config.estimator, objective.config.train.seed, dict[str, Tensor]()
    seed_networks(seed, "generator", update, *players.world.own_key)
    _take_reference(players)
    player, scale = players.generator, objective.scale("generator.learning_rate", progress)

    def draws(objective: Objective, chunks: list[Chunk]) -> Worked:
        return _draws(players, objective, chunks, progress)

    def work(objective: Objective, chunks: list[Chunk], *drawn: Tensor) -> Worked:
        return _gradients(players, objective, chunks, drawn, progress)

    drawn = recorded(Update(("draws of the policy",), players, player, objective, chunks, progress, draws))
    follow_baseline(players, objective, drawn.pairs)
    for epoch in range(settings.epochs):
        seed_networks(seed, "generator", update, epoch, *players.world.own_key)
        terms = recorded(Update(("policy",), players, player, objective, chunks, progress, work, drawn.tensors)).terms
        logs = apply_update(player, terms, scale, players.world)
        logs |= {f"generator/{name}": value for name, value in (terms.costs | terms.logs).items()}
    return logs


def _draws(players: Players, objective: Objective, chunks: list[Chunk], progress: float) -> Worked:
    """What the updates need of samples and their credit: rewards and masks (B, L), then all tensors of what was played."""
    turn = Turn(mean_positions(players.world, chunks))
    played = _scaled(players, objective, [_play(players, objective, chunk, progress, turn) for chunk in chunks], turn, progress)
    shared = [turn.positions, _entropy_weight(players, objective, played)]
    return Worked(Terms(), turn.gains, [*shared, *(tensor for each in played for tensor in each.tensors())])


def _gradients(players: Players, objective: Objective, chunks: list[Chunk], drawn: Sequence[Tensor], progress: float) -> Worked:
    """Those of one update over what was played, as ``_draws`` gave it."""
    worked, turn, entropy_weight, rest = Worked(Terms()), Turn(drawn[0]), drawn[1], drawn[2:]
    size = len(rest) // len(chunks)
    for index, chunk in enumerate(chunks):
        played = Played(chunk, *rest[index * size : (index + 1) * size])
        costs, moved = _costs(players, objective, played, turn, entropy_weight, progress)
        backward(players, players.generator, worked.terms, costs, len(chunks))
        add(worked.terms.logs, "clipped_share", moved, len(chunks))
    return worked


def _take_reference(players: Players) -> None:
    """Keep G as the adversarial phase found it; that it was kept is a part of the checkpoint."""
    if players.reference is not None and "reference_taken" not in players.state:
        players.reference.load_state_dict(players.generator.network.state_dict())
        players.state["reference_taken"] = torch.ones((), dtype=torch.bool, device=players.world.device)


@torch.no_grad()
def _play(players: Players, objective: Objective, chunk: Chunk, progress: float, turn: Turn) -> Played:
    """Draw, let D judge, and put real samples in the place of some."""
    settings, real = objective.config.estimator, chunk.real
    with players.precision():
        fake = generated(players, objective, chunk, progress)
        mask = drawn_places(fake)
        opinion = opinion_of(players, objective, chunk, fake, turn.positions)
        gained = gains(credited_cost(players, objective, chunk, fake, opinion, progress), mask, settings.rewards)
        is_real = _real_places(chunk.start, len(real), settings.real_share, mask.device)
        advantage = advantages(
            gained,
            mask,
            known_baseline(players, mask.shape[1]),
            positions=turn.positions,
            discount=settings.discount,
            rewards=settings.rewards,
        )
        if settings.rewards != "importance":
            turn.gains.append((gained, mask & ~is_real))
        values = torch.where(is_real, real.values, fake.values)
        mask = torch.where(is_real, drawn_places(real.sample), mask)
        log_probs = _log_probs(players, objective, chunk, values, progress)
    drawn_at = chosen(log_probs, values)
    return Played(chunk, values, mask & (drawn_at > IMPOSSIBLE), is_real, drawn_at, entropies(log_probs), advantage)


@cache  # recordings read them
def _real_places(start: int, size: int, share: float, device: torch.device) -> Tensor:
    """(B, 1) bool of ``size`` samples from ``start`` on: a share of the global batch, evenly spread over it."""
    index = torch.arange(start, start + size, dtype=torch.float64)
    return (((index + 1) * share).floor() > (index * share).floor()).unsqueeze(1).to(device)


def _log_probs(players: Players, objective: Objective, chunk: Chunk, values: Tensor, progress: float) -> Tensor:
    """(B, L, V) of all tokens at each place under the temperature of the draws."""
    temperature = draw_temperature(players, objective, "values", progress)
    logits = players.generates.score(values, chunk.real.condition, temperature=temperature, drawn=True)
    return logits.log_softmax(-1)


def _scaled(players: Players, objective: Objective, played: list[Played], turn: Turn, progress: float) -> list[Played]:
    """Advantages over their root mean square in the global batch, where wanted; real samples have one of their own.

    Nothing is subtracted: the baseline was, and a mean over all tokens would pay for length.
    """
    settings, scale = objective.config.estimator, torch.ones((), device=players.world.device)
    if settings.normalise:
        kept = [(each.advantage, each.mask & ~each.is_real) for each in played]
        squares = torch.stack([zero_outside(advantage, mask).double().square().sum() for advantage, mask in kept]).sum()
        count = torch.stack([mask.sum() for _, mask in kept]).sum().double()
        spread = (players.world.total(squares) / players.world.total(count).clamp(min=1)).sqrt()
        scale = 1 / ((spread + SMALLEST_SPREAD) * turn.positions)
    constant = objective.weight("estimator.real_reward", settings.real_reward, progress) / turn.positions
    return [
        replace(each, advantage=torch.where(each.is_real, constant, each.advantage * scale).to(each.advantage.dtype))
        for each in played
    ]


def _entropy_weight(players: Players, objective: Objective, played: list[Played]) -> Tensor:
    """The reward for entropy, a scalar; nothing while its mean over the global batch's drawn tokens is above the floor."""
    settings = objective.config.estimator
    if settings.entropy_floor == 0:
        return torch.full((), settings.entropy_weight, dtype=players.dtype, device=players.world.device)
    kept = [(each.entropy, each.mask & ~each.is_real) for each in played]
    total = players.world.total(torch.stack([zero_outside(entropy, mask).double().sum() for entropy, mask in kept]).sum())
    count = players.world.total(torch.stack([mask.sum() for _, mask in kept]).sum().double()).clamp(min=1)
    return torch.where(total / count < settings.entropy_floor, settings.entropy_weight, 0.0)


def _costs(
    players: Players, objective: Objective, played: Played, turn: Turn, entropy_weight: Tensor, progress: float
) -> tuple[dict[str, Tensor], Tensor]:
    """Named scalar costs of G on one micro-batch, and the share of its tokens that are beyond the clip."""
    settings, mask, condition = objective.config.estimator, played.mask, played.chunk.real.condition
    with players.precision():
        log_probs = _log_probs(players, objective, played.chunk, played.values, progress)
    log_prob = chosen(log_probs, played.values)
    cost = clipped_cost(log_prob=log_prob, drawn_at=played.drawn_at, advantage=played.advantage, mask=mask, clip=settings.clip)
    undecided = zero_outside(entropies(log_probs), mask & ~played.is_real).sum(1) / turn.positions
    costs = {"loss": (cost - entropy_weight * undecided).mean()}
    if players.reference is not None:
        temperature = draw_temperature(players, objective, "values", progress)
        with torch.no_grad(), players.precision():
            before = players.reference.score(played.values, condition, temperature=temperature, drawn=True).log_softmax(-1)
        weight = objective.weight("estimator.reference_weight", settings.reference_weight, progress)
        costs["reference"] = weight * divergence(log_probs, before, mask).mean() / turn.positions
    if "likelihood" in objective.auxiliary:
        weight = objective.weight("auxiliary.likelihood", objective.auxiliary["likelihood"], progress)
        with players.precision():
            costs["likelihood"] = weight * likelihood_cost(players, played.chunk.real, turn.positions)
    moved = (zero_outside(log_prob.detach() - played.drawn_at, mask).exp() - 1).abs() > settings.clip
    return costs, (moved & mask).sum() / mask.sum().clamp(min=1)
